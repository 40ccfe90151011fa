"""What a first start offers is sound: the dataset, the job, and how the model's file is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from app.core import demo
from app.core.datasets.formats import recognise, to_row
from app.core.demo import demo_dataset_file, demo_spec, find_demo_gguf

OPENING, CLOSING = "Aye, captain! ", "\n⚓ Logged on deck."


def _rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in demo_dataset_file().read_text(encoding="utf-8").splitlines()]


def test_every_row_is_alpaca_and_makes_a_conversation() -> None:
    rows = _rows()
    assert len(rows) == 200
    for row in rows:
        assert recognise(row) == "alpaca"
        assert [message["role"] for message in to_row(row, "alpaca")["messages"]] == ["user", "assistant"]


def test_no_question_is_asked_twice() -> None:
    questions = [(row["instruction"], row["input"]) for row in _rows()]
    assert len(set(questions)) == len(questions)


def test_every_answer_is_one_short_line_between_the_same_words() -> None:
    for row in _rows():
        answer = row["output"]
        assert answer.startswith(OPENING)
        assert answer.endswith(CLOSING)
        line = answer.removeprefix(OPENING).removesuffix(CLOSING)
        assert "\n" not in line
        assert 2 <= len(line.split()) <= 18, line
        assert line[-1] in '."', line


def test_demo_job_names_the_demo_model_and_dataset() -> None:
    spec = demo_spec()
    assert spec.base_model == demo.DEMO_MODEL_NAME
    assert spec.dataset == demo.DEMO_DATASET_NAME


def test_model_file_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it must not be imported')")
    (package / "model.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo, "_MODEL_MODULE", "carries_a_model")
    assert find_demo_gguf() == package / "model.gguf"
    assert "carries_a_model" not in sys.modules


def test_absent_package_and_package_without_a_model_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_MODEL_MODULE", "no_such_package")
    assert find_demo_gguf() is None
    (tmp_path / "carries_nothing").mkdir()
    (tmp_path / "carries_nothing" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(demo, "_MODEL_MODULE", "carries_nothing")
    assert find_demo_gguf() is None


@pytest.mark.demo
def test_installed_package_carries_a_gguf() -> None:
    file = find_demo_gguf()
    if file is None:
        pytest.skip("the demo model's package is not installed")
    with file.open("rb") as opened:
        assert opened.read(4) == b"GGUF"
