"""A state that is not as it was saved, or of another run, is passed over: an earlier one is used, and the user told."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import JobError
from tests.worker.training.runs import find_state, flip
from worker.artifacts.folders import folder_fault
from worker.context import JobContext
from worker.training import origin, resume

pytestmark = pytest.mark.model

FILES = [
    "trainable.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "progress.json",
]


def cut(file: Path) -> None:
    """Without its last byte."""
    file.write_bytes(file.read_bytes()[:-1])


DAMAGE = [
    *(pytest.param(name, flip, f"{name} is damaged", id=f"flipped byte in {name}") for name in FILES),
    *(pytest.param(name, cut, f"{name} has", id=f"cut {name}") for name in FILES),
    *(pytest.param(name, Path.unlink, f"{name} is missing", id=f"no {name}") for name in FILES),
    pytest.param("meta.json", flip, "meta.json", id="flipped byte in meta.json"),
    pytest.param("meta.json", cut, "meta.json cannot be read", id="cut meta.json"),
    pytest.param("meta.json", Path.unlink, "it is not complete: meta.json is missing", id="no meta.json"),
    pytest.param("meta.json", lambda f: f.write_text("{}"), "meta.json is incomplete", id="meta.json without files"),
]


def test_every_file_of_a_state_is_among_those_that_are_damaged_here(interrupted: JobContext) -> None:
    assert sorted(path.name for path in (interrupted.folder / "state" / "step-6").iterdir()) == sorted(
        [*FILES, "meta.json"]
    )


@pytest.mark.parametrize(("name", "damage", "reason"), DAMAGE)
def test_damaged_state_is_passed_over_with_its_reason(
    name: str, damage: Callable[[Path], Any], reason: str, interrupted: JobContext, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_state(interrupted).step == 6
    damage(interrupted.folder / "state" / "step-6" / name)
    with caplog.at_level(logging.INFO):
        found = find_state(interrupted)
    assert found.step == 4
    assert [(each["step"], each["reason"].startswith(reason)) for each in found.passed_over] == [(6, True)]
    assert f"the training state of step 6 is passed over: {found.passed_over[0]['reason']}" in caplog.text
    assert "going on from the training state of step 4" in caplog.text


def test_no_bit_of_a_meta_json_can_flip_unseen(interrupted: JobContext) -> None:
    meta = interrupted.folder / "state" / "step-6" / "meta.json"
    content = meta.read_bytes()
    assert folder_fault(meta.parent) is None
    for place in range(len(content)):
        meta.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert folder_fault(meta.parent), (
            f"byte {place} of {len(content)}: {content[max(0, place - 20) : place + 20]!r}"
        )


@pytest.mark.parametrize("key", ["spec", "dataset", "base_model", "rows", "start"])
def test_state_of_another_run_is_passed_over(key: str, interrupted: JobContext) -> None:
    found = find_state(interrupted, **{key: "another"})
    assert (found.state, found.step) == (None, 0)
    assert found.passed_over == [{"step": step, "reason": origin._DIFFERS[key]} for step in (6, 4)]


def test_state_of_a_shorter_run_is_used(interrupted: JobContext) -> None:
    assert find_state(interrupted, length="another").step == 6


def test_run_that_is_to_start_from_a_step_takes_no_later_state(interrupted: JobContext) -> None:
    assert [find_state(interrupted, up_to=step).step for step in (0, 3, 4, 5, 6, 99)] == [0, 0, 4, 4, 6, 6]
    shutil.rmtree(interrupted.folder / "state" / "step-6")
    assert find_state(interrupted, up_to=6).step == 4


def test_state_of_another_version_is_used_and_said_to_be(
    interrupted: JobContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {**resume.current_versions(), "torch": "99"}
    monkeypatch.setattr(resume, "current_versions", lambda: now)
    assert find_state(interrupted).step == 6
    assert f"saved with torch {torch.__version__} (now 99): the run may differ in the last digits" in caplog.text


def test_state_that_does_not_fit_the_model_is_an_error(interrupted: JobContext) -> None:
    other = torch.nn.Linear(2, 2)
    with pytest.raises(JobError, match="does not fit the model"):
        resume.load_trainable(other, interrupted.folder / "state" / "step-6")
