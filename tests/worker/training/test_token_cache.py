"""Tokenized rows are kept for the next job, and never used where anything that decides has changed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.artifacts.manifest import seal
from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec
from tests.worker.tiny import ROWS, make_context, make_tokenizer, train_payload, write_rows
from worker.context import StopRequest
from worker.training import rows as rows_module
from worker.training import token_cache
from worker.training.data import EncodedRow
from worker.training.rows import EncodedRows, load_rows

pytestmark = pytest.mark.model

USED = "the tokenized rows of an earlier job are used"


@pytest.fixture
def load(tmp_path: Path, tiny_model: Path) -> Callable[..., EncodedRows]:
    """Load the rows of a job; keywords override the spec. The model's folder is the test's own copy."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = write_rows(tmp_path / "rows.jsonl")

    def load(template: str | None = None, **spec: Any) -> EncodedRows:
        payload = train_payload(model, path, **spec)
        context = make_context(tmp_path / "job", "train", payload)
        tokenizer = make_tokenizer(chat_template=template) if template else make_tokenizer()
        return load_rows(context, tokenizer, TrainingSpec.model_validate(payload["spec"]))

    return load


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "tokens").glob("[!.]*"))


def encoded(rows: EncodedRows) -> tuple[list[EncodedRow], list[EncodedRow]]:
    return list(rows.train), list(rows.evaluation)


def test_second_job_encodes_nothing_and_gets_the_same(
    load: Callable[..., EncodedRows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first = load()
    assert USED not in caplog.text
    monkeypatch.setattr(rows_module, "encode_all", None)
    second = load()
    assert USED in caplog.text
    assert encoded(second) == encoded(first)
    assert (second.counts, second.held_out) == (first.counts, first.held_out)
    assert len(entries(tmp_path)) == 1


def test_split_is_decided_after_the_cache(load: Callable[..., EncodedRows], tmp_path: Path) -> None:
    rows = [load(eval_fraction=0.1), load(eval_fraction=0.5), load(eval_fraction=0.5, seed=1)]
    assert [(len(each.train), len(each.evaluation)) for each in rows] == [(22, 2), (12, 12), (12, 12)]
    assert rows[1].held_out != rows[2].held_out
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize(
    "change", [{"max_length": 20}, {"overlong_rows": "drop"}, {"template": "{% for m in messages %}a{% endfor %}"}]
)
def test_another_setting_that_decides_is_another_entry(
    load: Callable[..., EncodedRows], tmp_path: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    row = EncodedRow([1, 2, 3], [1, 2, 3], 3)
    monkeypatch.setattr("worker.training.encoding._sequences", lambda _tokenizer, rows, _spec: [[row] for _ in rows])
    assert load(**change).train[0].input_ids == [1, 2, 3]
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_changed_tokenizer_is_another_entry(load: Callable[..., EncodedRows], tmp_path: Path, name: str) -> None:
    load()
    (tmp_path / "model" / name).write_text("{}")
    load()
    assert len(entries(tmp_path)) == 2


def test_changed_rows_or_code_are_another_entry(
    load: Callable[..., EncodedRows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    write_rows(tmp_path / "rows.jsonl", ROWS[:10])
    assert load().counts.rows == 10
    monkeypatch.setattr(token_cache, "_DECIDING_CODE", (Path(str(rows_module.__file__)),))
    load()
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize("file", ["input_ids.bin", "learned.bin", "index.bin", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_entry_is_made_anew(
    load: Callable[..., EncodedRows], tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = encoded(load())
    path = entries(tmp_path)[0] / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    assert encoded(load()) == first
    assert "are not used and made anew" in caplog.text
    assert path.read_bytes()[:1] == content[:1]
    caplog.clear()
    assert encoded(load()) == first
    assert not caplog.text


def test_entry_of_something_else_is_made_anew(
    load: Callable[..., EncodedRows], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = encoded(load())
    meta = entries(tmp_path)[0] / "meta.json"
    content = json.loads(meta.read_text())
    content["decides"]["rows"] = "another"
    meta.write_text(seal(content))
    assert encoded(load()) == first
    assert "its meta.json is not that of these rows" in caplog.text


def test_cancelled_encoding_leaves_nothing(tmp_path: Path, tiny_model: Path) -> None:
    payload = train_payload(tiny_model, write_rows(tmp_path / "rows.jsonl"))
    context = make_context(tmp_path / "job", "train", payload)
    context.stop_request = StopRequest.CANCEL
    with pytest.raises(JobCancelled):
        load_rows(context, make_tokenizer(), TrainingSpec.model_validate(payload["spec"]))
    assert entries(tmp_path) == []
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [".lock"]


def test_those_used_last_are_kept(load: Callable[..., EncodedRows], tmp_path: Path) -> None:
    load(max_length=100)
    (first,) = entries(tmp_path)
    for length in range(101, 101 + token_cache.KEPT_ENTRIES):
        load(max_length=100)
        load(max_length=length)
    assert len(entries(tmp_path)) == token_cache.KEPT_ENTRIES
    assert first in entries(tmp_path)
