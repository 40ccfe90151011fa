"""The X-ray is what training sees, token by token; and it says what is odd about a row."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from app.core.datasets.normalise import normalise
from app.core.datasets.xray import XRAY_FILE, Flag, XrayRow
from app.core.demo import demo_dataset_file
from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec
from tests.worker.encoders import encode_turns
from tests.worker.tiny import CHAT_TEMPLATE, ROWS, make_context, make_tokenizer, read_records, train_payload
from worker.context import StopRequest
from worker.datasets import preview, template_guard
from worker.datasets.preview import run_preview
from worker.datasets.template_guard import TemplateFault
from worker.training import encoding
from worker.training.data import IGNORED_LABEL, EncodedRow, ensure_chat_template
from worker.training.packing import Packs
from worker.training.pairs import Pairs
from worker.training.rows import EncodedRows, load_rows

pytestmark = pytest.mark.model

SAMPLES = os.environ.get("LORADECK_TEST_DATA")  # a folder with alpaca_en_demo.json and dpo_en_demo.json
OF_SAMPLES = pytest.mark.skipif(not SAMPLES, reason="LORADECK_TEST_DATA names no folder with sample files")
ALL = 10**6
REWRITING = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] if loop.last or m['role'] == 'user' else 'gone' }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
RUNNING_ON = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
Look = Callable[..., dict[str, Any]]


def say(user: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def save_tokenizer(
    folder: Path, template: str | None = CHAT_TEMPLATE, begin: str | None = None, end: str | None = "<|im_end|>"
) -> Any:
    """A model's folder as far as the X-ray needs it; where it is left to itself, the tokenizer puts `begin` first."""
    tokenizer = make_tokenizer(chat_template=template)
    tokenizer.eos_token = end
    if begin:
        tokenizer.bos_token = begin
        piece = (begin, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[piece])
    tokenizer.save_pretrained(folder)
    return tokenizer


def preview_payload(model: Path, rows: Path, total: int, first: int = 1, find: bool = False, **training: Any) -> Any:
    training = {"base_model": "tiny", "dataset": "boxes", "eval_fraction": 0, "max_length": 128, **training}
    return {
        "spec": {"training": training, "first": first, "rows": ALL, "find": find, "total": total},
        "base_model": {"name": "tiny", "path": str(model)},
        "dataset": {"name": "boxes", "path": str(rows)},
    }


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The X-ray of some rows (turns, texts or preferences) under the tiny tokenizer: the file, with the summary."""

    def look(
        rows: list[Any],
        *,
        template: str | None = CHAT_TEMPLATE,
        begin: str | None = None,
        end: str | None = "<|im_end|>",
        stop: StopRequest | None = None,
        **asked: Any,
    ) -> Any:
        lines = [row if isinstance(row, dict) else {"messages": row} for row in rows]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        save_tokenizer(tmp_path / "model", template, begin, end)
        payload = preview_payload(tmp_path / "model", tmp_path / "rows.jsonl", len(rows), **{"task": "sft", **asked})
        context = make_context(tmp_path / "preview", "preview", payload)
        context.stop_request = stop
        return {"summary": run_preview(context), **json.loads((context.folder / XRAY_FILE).read_bytes())}

    return look


def trained_on(folder: Path, rows: Path, training: dict[str, Any]) -> EncodedRows:
    payload = train_payload(folder, rows, **training)
    context = make_context(folder / "train", "train", payload)
    return load_rows(context, preview.load_tokenizer(folder), TrainingSpec.model_validate(payload["spec"]))


def sequences_of(rows: EncodedRows) -> list[EncodedRow]:
    """Those that are trained on, in the dataset's order."""
    if not isinstance(rows.train, Pairs):
        return list(rows.train)
    return [side for pair in rows.train for side in (pair.chosen, pair.rejected)]


def ids_and_labels(row: EncodedRow) -> tuple[list[int], list[bool]]:
    return row.input_ids, [label != IGNORED_LABEL for label in row.labels]


def shown_sequences(rows: list[XrayRow]) -> list[tuple[list[int], list[bool]]]:
    """Ids of each kept sequence, and which of them are learned."""
    return [
        ([token["id"] for token in tokens], [token["trained"] for token in tokens])
        for row in rows
        for each in row["sequences"]
        if each["kept"]
        for tokens in [row["tokens"][each["start"] : each["end"]]]
    ]


@pytest.mark.parametrize(
    ("source", "training"),
    [
        pytest.param(demo_dataset_file(), {"task": "sft", "max_length": 96}, id="demo"),
        pytest.param(demo_dataset_file(), {"task": "sft", "max_length": 96, "overlong_rows": "drop"}, id="demo, drop"),
        pytest.param("alpaca_en_demo.json", {"task": "sft", "max_length": 256}, marks=OF_SAMPLES, id="alpaca"),
        pytest.param("dpo_en_demo.json", {"task": "dpo", "max_length": 512}, marks=OF_SAMPLES, id="preferences"),
    ],
)
def test_every_token_and_label_of_every_row_is_that_of_training(
    source: str | Path, training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "WINDOW_TOKENS", ALL**2)
    path = Path(SAMPLES or "", source)
    total = normalise(path, tmp_path / "rows.jsonl", suffix=path.suffix, columns=None).rows
    save_tokenizer(tmp_path)
    context = make_context(
        tmp_path / "preview", "preview", preview_payload(tmp_path, tmp_path / "rows.jsonl", total, **training)
    )
    run_preview(context)
    rows = json.loads((context.folder / XRAY_FILE).read_bytes())["rows"]
    trained = trained_on(tmp_path, tmp_path / "rows.jsonl", {**training, "eval_fraction": 0})
    expected = list(map(ids_and_labels, sequences_of(trained)))
    assert len(rows) == total > 100
    assert any(True in learned and False in learned for _, learned in expected)
    assert shown_sequences(rows) == expected
    by_flag = {flag: sum(flag in row["flags"] for row in rows) for flag in Flag}
    counts = trained.counts
    assert by_flag[Flag.DROPPED] == counts.dropped.count
    assert sum(Flag.CUT in row["flags"] and Flag.DROPPED not in row["flags"] for row in rows) == counts.truncated.count
    assert by_flag[Flag.CUT] > 0


@pytest.mark.parametrize("template", [REWRITING, None])
def test_rewritten_history_and_a_missing_template_are_shown_as_trained(
    template: str | None, look: Look, tmp_path: Path
) -> None:
    rows = [[*ROWS[0], *ROWS[1]], ROWS[2]]
    xray = look(rows, template=template)
    tokenizer = preview.load_tokenizer(tmp_path / "model")
    assert ensure_chat_template(tokenizer) is xray["default_template"] is (template is None)
    assert [len(row["sequences"]) for row in xray["rows"]] == ([2, 1] if template else [1, 1])
    assert (Flag.SEVERAL_SEQUENCES in xray["rows"][0]["flags"]) is bool(template)
    expected = [each for row in rows for each in encode_turns(tokenizer, row, 128)]
    assert shown_sequences(xray["rows"]) == list(map(ids_and_labels, expected))


def test_texts_and_runs_spell_the_row(look: Look) -> None:
    (row,) = look([say("Box ⚓?", "It is\nred.")])["rows"]
    text = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nBox ⚓?<|im_end|>\n<|im_start|>assistant\n"
    joined = "".join(token["text"] for token in row["tokens"])
    assert joined.replace("<0xE2><0x9A><0x93>", "⚓") == f"{text}It is\nred.<|im_end|>\n"
    runs = [(run["trained"], run["text"]) for run in row["sequences"][0]["runs"]]
    assert runs == [(False, text), (True, "It is\nred.<|im_end|>"), (False, "\n")]
    assert sum(run["tokens"] for run in row["sequences"][0]["runs"]) == len(row["tokens"]) == row["total_tokens"]
    assert row["trained_tokens"] == sum(token["trained"] for token in row["tokens"])
    assert [token["text"] for token in row["tokens"] if token["special"] and token["trained"]] == ["<|im_end|>"]


LONG = say("Box 1?", "Box 1 is red. " * 20)
BOS = "<|endoftext|>"


@pytest.mark.parametrize(
    ("row", "asked", "flags", "reason"),
    [
        (ROWS[0], {}, ["bos", "end_of_turn_trained"], None),
        (LONG, {"max_length": 100}, ["bos", "cut"], None),
        (LONG, {"max_length": 40, "overlong_rows": "drop"}, ["bos", "cut", "dropped"], "longer than max_length = 40"),
        (ROWS[0], {"max_length": 20}, ["bos", "cut", "answer_lost", "dropped"], "no token to learn is left"),
        (ROWS[0], {"begin": BOS}, ["bos_missing", "end_of_turn_trained"], None),
        (ROWS[0], {"begin": BOS, "template": BOS + CHAT_TEMPLATE}, ["bos", "end_of_turn_trained"], None),
        (ROWS[0], {"begin": BOS, "template": BOS * 2 + CHAT_TEMPLATE},
         ["bos", "bos_doubled", "end_of_turn_trained"], None),
        (ROWS[0], {"template": RUNNING_ON}, ["end_of_turn_trained"], None),
        (ROWS[0], {"template": RUNNING_ON, "end": None}, ["end_of_turn_missing"], None),
        (ROWS[0], {"template": "{{ raise_exception('no users here') }}"}, ["refused"], "no users here"),
        (ROWS[0], {"template": "{{ 1 // 0 }}"}, ["refused"], "division"),
        ({"text": "Box 1 is red."}, {"task": "text"}, ["end_of_text_trained"], None),
        ({"text": "Box 1 is red."}, {"task": "text", "begin": BOS}, ["bos", "end_of_text_trained"], None),
        ({"text": "Box 1 is red. " * 20}, {"task": "text", "max_length": 64},
         ["end_of_text_trained", "several_sequences"], None),
        ({"text": "Box 1 is red. " * 20}, {"task": "text", "max_length": 64, "overlong_rows": "truncate"},
         ["cut"], None),
        ({"prompt": ROWS[0][:1], "chosen": ROWS[0][1:], "rejected": ROWS[1][1:]}, {"task": "dpo"},
         ["bos", "end_of_turn_trained"], None),
        ({"prompt": ROWS[0][:1], "chosen": ROWS[0][1:], "rejected": ROWS[1][1:]}, {"task": "dpo", "max_length": 20},
         ["bos", "cut", "answer_lost", "dropped"], "no token to learn"),
        ({"prompt": ROWS[0][:1], "chosen": LONG[1:], "rejected": [{**LONG[1], "content": LONG[1]["content"] + "No."}]},
         {"task": "dpo", "max_length": 100}, ["bos", "cut", "dropped"], "both answers are the same"),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_row_is_said(
    row: Any, asked: dict[str, Any], flags: list[str], reason: str | None, look: Look
) -> None:
    (shown,) = look([row], **asked)["rows"]
    assert shown["flags"] == flags
    assert (shown["reason"] is None) if reason is None else (reason in shown["reason"])
    assert any(each["kept"] for each in shown["sequences"]) is not bool({"dropped", "refused"} & set(flags))


def test_the_sides_of_a_pair_are_named(look: Look) -> None:
    pair = {"prompt": ROWS[0][:1], "chosen": ROWS[0][1:], "rejected": ROWS[1][1:]}
    (row,) = look([pair], task="dpo")["rows"]
    assert [each["name"] for each in row["sequences"]] == ["chosen", "rejected"]
    learned = [run["text"] for each in row["sequences"] for run in each["runs"] if run["trained"]]
    assert learned == [f"{answer[1]['content']}<|im_end|>" for answer in ROWS[:2]]


def test_packs_are_those_of_training_and_leave_out_what_is_held_out(look: Look, tmp_path: Path) -> None:
    training = {"packing": True, "eval_fraction": 0.25, "max_length": 128}
    rows = [*ROWS, LONG]
    xray = look(rows, **training)
    trained = trained_on(tmp_path / "model", tmp_path / "rows.jsonl", training)
    packs = Packs(trained.train, trained.train.lengths.tolist(), 128)
    expected = sorted(sorted(tuple(row.input_ids) for row in pack) for pack in packs)
    shown: dict[int, list[tuple[int, ...]]] = {}
    for row in xray["rows"]:
        assert (Flag.HELD_OUT in row["flags"]) is (row["row"] - 1 in trained.held_out)
        for each in row["sequences"]:
            if each["pack"]:
                assert row["row"] == each["pack"]["rows"][each["pack"]["place"] - 1]
                shown.setdefault(each["pack"]["number"], []).append(tuple(token["id"] for token in row["tokens"]))
            assert (each["pack"] is None) is (Flag.HELD_OUT in row["flags"])
    assert sorted(map(sorted, shown.values())) == expected
    assert max(map(len, shown.values())) > 1
    assert xray["packing"] == {
        "whole": True,
        "tokenized": len(rows),
        "packs": len(packs),
        "sequences": len(trained.train),
    }


def test_where_time_runs_out_only_the_rows_shown_are_packed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "PACK_SECONDS", -1)
    monkeypatch.setattr(preview, "WINDOW_TOKENS", 100)
    xray = look(ROWS[:4], packing=True)
    assert xray["packing"] == {"whole": False, "tokenized": 1, "packs": 1, "sequences": 3}
    assert xray["last"] == len(xray["rows"]) == 3


def test_the_next_suspicious_row_is_found_and_the_search_has_an_end(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS[:8], LONG, *ROWS[:8]]
    found = look(rows, max_length=100, first=3, find=True)
    assert found["summary"] == {"first": 9, "last": 17, "found": 9, "searched_to": 9}
    assert (found["first"], [row["row"] for row in found["rows"]]) == (9, list(range(9, 18)))
    none = look(rows, max_length=100, first=10, find=True)
    assert none["summary"] == {"first": 10, "last": 9, "found": None, "searched_to": 17}
    assert none["rows"] == []
    monkeypatch.setattr(preview, "SEARCHED_ROWS", 5)
    assert look(rows, max_length=100, find=True)["summary"]["searched_to"] == 5
    monkeypatch.setattr(preview, "SEARCH_SECONDS", -1)
    assert look(rows, max_length=100, find=True)["summary"]["searched_to"] == 1


def test_a_search_tells_how_far_it_is_and_listens(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preview, "_REPORT_SECONDS", -1)
    monkeypatch.setattr(encoding, "_BATCH_ROWS", 1)
    look(ROWS[:4], find=True)
    context = make_context(tmp_path / "preview", "preview", {})
    steps = [(record.step, record.data["max_steps"]) for record in read_records(context) if record.kind == "progress"]
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4)]
    with pytest.raises(JobCancelled):
        look(ROWS[:4], stop=StopRequest.CANCEL)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "did not end within 0.5 s"),
        ("{{ 'a' * 2 * 10**6 }}", "makes 2,000,000 characters of a conversation of"),
        ("{{ 'a' * 10**14 }}", "asks for more memory"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "calls itself without end"),
    ],
)
def test_a_hostile_template_is_broken_off_and_named(
    template: str, words: str, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_guard, "SECONDS", 0.5)
    with pytest.raises(TemplateFault, match="The chat template of tiny") as caught:
        look([ROWS[0]], template=template)
    assert words in caught.value.message
    assert "chat_template" in (caught.value.advice or "")
