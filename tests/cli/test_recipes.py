"""`loradeck jobs import`, and `jobs submit` from stdin, from other programs' files and with changes."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.core.jobs.spec import parse_spec, parse_yaml
from tests.cli.conftest import Command

RECIPES = Path(__file__).parents[1] / "fixtures" / "recipes"
AXOLOTL = RECIPES / "axolotl-qlora.yml"


def test_import_prints_a_job_yaml_and_accounts_for_every_key(loradeck: Command, tmp_path: Path) -> None:
    result = loradeck("jobs", "import", AXOLOTL)
    assert result.code == 0, result.err
    spec = parse_yaml(result.out)
    assert (spec.method, spec.r) == ("qlora", 32)
    assert "  wandb_project: tickets — nothing is sent to other services" in result.err
    assert "  micro_batch_size: 2 → per_device_train_batch_size: 2" in result.err
    assert "assumed (" in result.err
    out = tmp_path / "job.yaml"
    assert loradeck("jobs", "import", AXOLOTL, "-o", out, "--set", "dataset=demo").code == 0
    assert parse_yaml(out.read_text()).dataset == "demo"
    found = loradeck("jobs", "import", AXOLOTL, "--json").json
    assert parse_yaml(found["yaml"]) == parse_spec(found["values"]) == spec


def test_a_value_without_an_equivalent_ends_with_2_unless_it_is_set(loradeck: Command, tmp_path: Path) -> None:
    path = tmp_path / "kto.yml"
    path.write_text(AXOLOTL.read_text() + "rl: kto\n")
    refused = loradeck("jobs", "import", path)
    assert (refused.code, refused.out) == (2, "")
    assert "error: task: axolotl's rl: kto has no equivalent here" in refused.err
    assert loradeck("jobs", "import", path, "--set", "task=sft").code == 0
    assert loradeck("jobs", "submit", path, "--from", "axolotl").code == 2


def test_another_programs_file_is_queued_with_changes(loradeck: Command, spec: Path) -> None:
    changes = ("base_model=tiny", "dataset=small", "target_modules=[q_proj]", "max_length=128")
    options = [option for change in changes for option in ("--set", change)]
    result = loradeck("jobs", "submit", AXOLOTL, "--from", "axolotl", *options, "--json")
    assert result.code == 0, result.err
    assert (result.json["spec"]["target_modules"], result.json["spec"]["r"]) == (["q_proj"], 32)
    assert loradeck("jobs", "spec", result.json["id"]).out == parse_spec(result.json["spec"]).to_yaml()


def test_a_job_is_queued_from_stdin(loradeck: Command, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(spec.read_bytes())))
    assert loradeck("jobs", "submit", "-", "--json").json["spec"]["r"] == 4


@pytest.mark.parametrize(
    ("change", "words"), [("r", "not FIELD=VALUE"), ("r=[1", "cannot be read"), ("rr=1", "Did you mean r?")]
)
def test_a_change_that_cannot_be_is_named(loradeck: Command, spec: Path, change: str, words: str) -> None:
    result = loradeck("jobs", "submit", spec, "--set", change)
    assert result.code == 2
    assert words in result.err
