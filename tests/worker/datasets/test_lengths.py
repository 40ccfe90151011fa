"""Lengths and what max_length costs are those of the function that training calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ModelLoadError
from app.core.jobs.spec import parse_spec
from app.core.jobs.submit import KIND_OF_TASK
from tests.worker.contexts import make_context, read_records
from tests.worker.tiny import CHAT_TEMPLATE, COLOURS, make_tokenizer
from worker.datasets.check import run_check
from worker.datasets.lengths import TASK_OF, make_histogram
from worker.datasets.template_guard import TemplateFault
from worker.training.encoding import TAKE, encode

pytestmark = pytest.mark.model

Check = Callable[..., dict[str, Any]]


def say(user: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def wordy(words: int) -> str:
    return " ".join(COLOURS[number % len(COLOURS)] for number in range(words))


MESSAGES = [{"messages": say(wordy(5 * n), wordy(40 - n))} for n in range(1, 40)]
PAIRS = [
    {"prompt": say(wordy(3 * n), "")[:1], "chosen": say("", wordy(n))[1:], "rejected": say("", wordy(40 - n))[1:]}
    for n in range(1, 40)
    if n != 20
]
TEXTS = [{"text": wordy(4 * n)} for n in range(1, 40)]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The report of a dataset's rows under the tiny tokenizer."""

    def check(
        rows: list[dict[str, Any]], format_name: str, max_length: int, template: str | None = CHAT_TEMPLATE
    ) -> dict[str, Any]:
        path, model = tmp_path / "rows.jsonl", tmp_path / "model"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        make_tokenizer(chat_template=template).save_pretrained(model)
        payload = {
            "spec": {"max_length": max_length},
            "dataset": {"path": str(path), "format": format_name},
            "base_model": {"name": "tiny", "path": str(model)},
        }
        return run_check(make_context(tmp_path / "job", "check", payload))

    return check


@pytest.mark.parametrize(
    ("rows", "format_name", "task"),
    [(MESSAGES, "messages", "sft"), (PAIRS, "preference", "dpo"), (TEXTS, "text", "text")],
)
def test_counts_are_those_of_training(check: Check, rows: list[Any], format_name: str, task: str) -> None:
    tokens = check(rows, format_name, 128)["tokens"]
    tokenizer, taken = make_tokenizer(), [TAKE[task](row) for row in rows]
    asked = {"base_model": "tiny", "dataset": "boxes", "task": task, "max_length": 128}
    kept = {}
    for name in (["split"] if task == "text" else []) + ["truncate", "drop"]:
        encoded = [encode(tokenizer, row, parse_spec({**asked, "overlong_rows": name})) for row in taken]
        trained = sum(sequence.trained_tokens for encoding in encoded for sequence in encoding.kept)
        kept[name] = (sum(bool(encoding.kept) for encoding in encoded), trained)
    found = {each["overlong_rows"]: (each["rows"], each["trained_tokens"]) for each in tokens["choices"]}
    assert found == kept
    assert kept["drop"] < kept["truncate"]
    whole = [encode(tokenizer, row, parse_spec({**asked, "max_length": 10_000})) for row in taken]
    lengths = sorted(max(len(each.input_ids) for each in encoding.sequences) for encoding in whole)
    assert (tokens["rows"], tokens["max"], tokens["p50"]) == (len(rows), lengths[-1], lengths[(len(rows) - 1) // 2])
    assert tokens["truncated"] == sum(length > 128 for length in lengths) > 0
    assert sum(tokens["histogram"]["counts"]) + tokens["histogram"]["over"] == len(rows)


def test_rows_that_lose_their_answer_are_named(check: Check) -> None:
    report = check([{"messages": say("Hi", "Yo")}, {"messages": say(wordy(200), "Yo")}], "messages", 64)
    assert (report["tokens"]["truncated"], report["tokens"]["answer_lost"], report["unusable"]) == (1, 1, 0)
    ((row, kind, message),) = [(each["row"], each["kind"], each["message"]) for each in report["problems"]]
    assert (row, kind) == (2, "answer_lost")
    assert message.startswith("nothing of an answer is left within 64 of its ")


def test_rows_that_the_chat_template_refuses_are_named(check: Check) -> None:
    template = "{% if messages[0]['content'] == 'No' %}{{ raise_exception('not that') }}{% endif %}" + CHAT_TEMPLATE
    rows = [{"messages": say(user, "Yo")} for user in ("Hi", "No", "Ho")]
    report = check(rows, "messages", 64, template)
    assert [(each["row"], each["kind"]) for each in report["problems"]] == [(2, "refused")]
    assert (report["unusable"], report["tokens"]["refused"], report["tokens"]["rows"]) == (1, 1, 2)


def test_a_template_that_rewrites_history_is_told(check: Check) -> None:
    thinks = (
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] if loop.last or m['role'] == 'user' else 'gone' }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    report = check(
        [{"messages": say("Hi", "Yo") + say("Ho", "Ya")}, {"messages": say("a", "b")}], "messages", 64, thinks
    )
    assert (report["tokens"]["rewritten"], report["tokens"]["default_template"]) == (1, False)


def test_a_model_without_a_template_is_told(check: Check) -> None:
    tokens = check([{"messages": say("a", "b")}], "messages", 64, None)["tokens"]
    assert (tokens["rewritten"], tokens["default_template"]) == (0, True)


def test_what_is_wrong_with_the_first_rows_is_told_before_the_tokenizer_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n" + '{"text": "one"}\n' * 70)
    payload = {"spec": {"max_length": 64}, "dataset": None, "path": str(path)}
    context = make_context(tmp_path / "job", "check", {**payload, "base_model": {"name": "gone", "path": "gone"}})
    with pytest.raises(ModelLoadError):
        run_check(context)
    (told,) = [record.data for record in read_records(context) if record.kind == "summary"]
    assert (told["rows"], told["problems"][0]["row"]) == (71, 1)


def test_a_hostile_template_ends_the_check(check: Check) -> None:
    with pytest.raises(TemplateFault, match="makes"):
        check([{"messages": say("Hi", "Yo")}], "messages", 64, "{{ 'a' * 2000000 }}")


def test_each_kind_of_rows_has_its_task() -> None:
    assert {task: kind for kind, task in TASK_OF.items()} == KIND_OF_TASK


@pytest.mark.parametrize(
    ("lengths", "max_length", "expected"),
    [
        ([], 512, {"width": 1, "counts": [], "over": 0}),
        ([1, 1, 3], 2, {"width": 1, "counts": [0, 2, 0, 1], "over": 0}),
        ([10, 90], 10_000, {"width": 5, "counts": [0, 0, 1] + [0] * 15 + [1], "over": 0}),
        ([30], 50, {"width": 2, "counts": [0] * 15 + [1] + [0] * 10, "over": 0}),
        ([10] * 199 + [5000], 8, {"width": 1, "counts": [0] * 10 + [199], "over": 1}),
    ],
)
def test_the_histogram_counts_every_row(lengths: list[int], max_length: int, expected: dict[str, Any]) -> None:
    assert make_histogram(np.asarray(lengths, dtype=np.int64), max_length) == expected
