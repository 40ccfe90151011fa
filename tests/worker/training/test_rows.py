"""What becomes of a job's rows: split, cut, left out, counted."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import DatasetFormatError, InvalidInput
from app.core.jobs.spec import TrainingSpec
from tests.worker.tiny import ROWS, make_context, make_model, make_tokenizer, read_records, train_payload, write_rows
from worker.context import JobContext
from worker.training.reading import split_rows
from worker.training.rows import EncodedRows, load_rows
from worker.training.train import run_training

pytestmark = pytest.mark.model

LONG = [{"role": "user", "content": "Box 1?"}, {"role": "assistant", "content": "Box 1 is red. " * 20}]
TWO_TURNS = [*ROWS[0], *ROWS[1]]
REWRITING = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] if loop.last or m['role'] == 'user' else 'gone' }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def load(folder: Path, rows: list[Any], *, template: str | None = None, **spec: Any) -> tuple[EncodedRows, JobContext]:
    payload = train_payload(folder, write_rows(folder / "rows.jsonl", rows), **{"eval_fraction": 0, **spec})
    context = make_context(folder / "job", "train", payload)
    tokenizer = make_tokenizer(chat_template=template) if template else make_tokenizer()
    return load_rows(context, tokenizer, TrainingSpec.model_validate(payload["spec"])), context


@pytest.mark.parametrize(("choice", "trained", "dropped", "truncated"), [("truncate", 3, 0, 1), ("drop", 2, 1, 0)])
def test_overlong_rows_are_cut_or_left_out_and_counted(
    tmp_path: Path, choice: str, trained: int, dropped: int, truncated: int
) -> None:
    rows, _ = load(tmp_path, [ROWS[0], LONG, ROWS[1]], max_length=100, overlong_rows=choice)
    assert (len(rows.train), rows.counts.dropped.count, rows.counts.truncated.count) == (trained, dropped, truncated)
    assert all(len(row.input_ids) <= 100 for row in rows.train)


def test_rewritten_history_makes_a_sequence_for_each_answer_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.training.rows")
    rows, _ = load(tmp_path, [ROWS[0], TWO_TURNS], template=REWRITING)
    assert (len(rows.train), rows.counts.split.count) == (3, 1)
    assert "rewrites or does not end: a sequence for each of 1 row (2)" in caplog.text


def test_row_whose_answer_cannot_be_told_from_its_prompt_is_refused_by_number(tmp_path: Path) -> None:
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    with pytest.raises(DatasetFormatError, match="row 1 cannot be used with this model: the chat template renders"):
        load(tmp_path, [ROWS[0]], template=template)


def test_nothing_to_learn_in_any_row_fails_naming_the_rows(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="of rows 1 to 2 of boxes, none to train on keeps a token to learn"):
        load(tmp_path, ROWS[:2], max_length=8)


def test_tokenizing_reports_no_optimizer_steps(tmp_path: Path) -> None:
    _, context = load(tmp_path, ROWS)
    assert not [record for record in read_records(context) if record.kind == "progress"]


def test_early_stopping_is_refused_where_all_that_is_held_out_was_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, (held_out,) = split_rows(3, 0.3, seed=42)
    given = list(ROWS[:3])
    given[held_out] = LONG
    spec = {"max_length": 100, "overlong_rows": "drop", "eval_fraction": 0.3}
    rows, _ = load(tmp_path, given, **spec)
    assert (len(rows.train), len(rows.evaluation)) == (2, 0)
    assert "there will be no eval loss: none of the 1 rows held out of boxes keeps a token to learn" in caplog.text
    with pytest.raises(DatasetFormatError) as caught:
        load(tmp_path, given, early_stopping_patience=1, **spec)
    assert [fault.field for fault in caught.value.faults] == ["early_stopping_patience"]


def test_rows_that_are_not_held_out_after_all_are_trained_on_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.training.rows")
    rows, _ = load(tmp_path, ROWS, eval_fraction=0.5, eval_max_rows=3)
    assert (len(rows.train), len(rows.evaluation), rows.left_to_train) == (21, 3, 9)
    assert "3 rows are held out, as eval_max_rows says; eval_fraction = 0.5 alone would hold out 12" in caplog.text
    caplog.clear()
    rows, _ = load(tmp_path, ROWS, eval_fraction=0.5, eval_max_rows=12)
    assert (len(rows.evaluation), rows.left_to_train, "eval_max_rows" in caplog.text) == (12, 0, False)


@pytest.mark.parametrize("task", ["sft", "text"])
def test_a_token_that_the_model_was_not_grown_for_is_named(task: str, tmp_path: Path) -> None:
    """Before it was, the first step ended with an index out of range."""
    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(tmp_path / "model")  # knows 8 tokens more than the tokenizer
    tokenizer.add_tokens([f"<new{number}>" for number in range(10)])
    tokenizer.save_pretrained(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    texts = ["Box 1.", "Box <new7>.", "Box <new8>."]
    lines = [{"text": t, "messages": [ROWS[0][0], {"role": "assistant", "content": t}]} for t in texts]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {"task": task, "eval_fraction": 0, "max_steps": 1}
    with pytest.raises(InvalidInput, match=r"row 3 has the token <new8> with the id"):
        run_training(make_context(tmp_path / "job", "train", train_payload(tmp_path / "model", rows, **spec)))
