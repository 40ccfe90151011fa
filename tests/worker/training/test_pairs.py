"""How a preference pair is encoded: the same prompt before both answers, and the answers alone learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import DatasetFormatError
from app.core.jobs.spec import TrainingSpec
from tests.worker.encoders import encode_pair
from tests.worker.tiny import ROWS, make_context, make_tokenizer, train_payload
from worker.training.data import IGNORED_LABEL, EncodedRow, encode_row
from worker.training.pairs import Pair, Pairs, comparable
from worker.training.rows import EncodedRows, load_rows

pytestmark = pytest.mark.model


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


QUESTION, ANSWER = ROWS[0][:1], ROWS[0][1:]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def learned(tokenizer: Any, row: EncodedRow) -> str:
    text: str = tokenizer.decode([label for label in row.labels if label != IGNORED_LABEL])
    return text


def test_both_sides_are_encoded_as_an_answer_is(tokenizer: Any) -> None:
    other = say("Box 0 is not there.")
    expected = [encode_row(tokenizer, [*QUESTION, *answer], 128) for answer in (ANSWER, other)]
    assert encode_pair(tokenizer, (QUESTION, ANSWER, other), 128) == expected


def test_of_several_turns_only_the_answers_behind_the_prompt_are_learned(tokenizer: Any) -> None:
    prompt = [*ROWS[0], *ROWS[1][:1]]
    chosen, rejected = encode_pair(tokenizer, (prompt, say("Green."), [*say("Red."), *ROWS[2]]), 256)
    assert learned(tokenizer, chosen) == "Green.<|im_end|>"
    assert learned(tokenizer, rejected) == f"Red.<|im_end|>{ROWS[2][1]['content']}<|im_end|>"


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (ANSWER, say("red " * 20)),
        (say("red " * 20), ANSWER),
    ],
)
def test_an_answer_that_is_cut_keeps_its_pair(tokenizer: Any, chosen: Any, rejected: Any) -> None:
    whole = len(encode_row(tokenizer, [*QUESTION, *ANSWER], 128).input_ids)
    sides = encode_pair(tokenizer, (QUESTION, chosen, rejected), whole)
    assert sorted(side.truncated for side in sides) == [False, True]


def test_a_pair_with_nothing_left_to_compare_is_told_from_others(tokenizer: Any) -> None:
    prompt = len(encode_row(tokenizer, [*QUESTION, *say("")], 128).input_ids) - 2
    assert not comparable(encode_pair(tokenizer, (QUESTION, ANSWER, say("Green.")), prompt))
    alike: Pair = (QUESTION, say("red red red red green"), say("red red red red blue"))
    assert not comparable(encode_pair(tokenizer, alike, prompt + 2))
    assert comparable(encode_pair(tokenizer, alike, 128))


def load(folder: Path, pairs: list[Pair], **spec: Any) -> EncodedRows:
    lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), pair, strict=True))) + "\n" for pair in pairs]
    rows = folder / "rows.jsonl"
    rows.write_text("".join(lines), encoding="utf-8")
    payload = train_payload(folder, rows, **{"task": "dpo", "eval_fraction": 0, **spec})
    context = make_context(folder / "job", "train", payload)
    return load_rows(context, make_tokenizer(), TrainingSpec.model_validate(payload["spec"]))


PAIRS: list[Pair] = [(row[:1], row[1:], say("No idea. " * (1 + number % 3))) for number, row in enumerate(ROWS)]


def test_rows_are_pairs_split_and_ordered_whole(tmp_path: Path, tokenizer: Any) -> None:
    rows = load(tmp_path, PAIRS, eval_fraction=0.25)
    assert (len(rows.train), len(rows.evaluation), rows.counts.split.count) == (18, 6, 0)
    assert isinstance(rows.train, Pairs)
    encoded = [encode_pair(tokenizer, pair, 128) for pair in PAIRS]
    for pair in [*rows.train, *rows.evaluation.by_length()]:
        assert [pair.chosen, pair.rejected] == encoded[pair.number]
    assert {pair.number for pair in rows.evaluation} == set(rows.held_out)
    lengths = [len(pair.chosen.input_ids) + len(pair.rejected.input_ids) for pair in rows.train.by_length()]
    assert lengths == sorted(rows.train.lengths.tolist())
    assert len(set(lengths)) > 1
    longer = [max(len(pair.chosen.input_ids), len(pair.rejected.input_ids)) for pair in rows.train]
    assert rows.train.longer_sides.tolist() == longer
    both = sum(side.trained_tokens for pair in rows.train for side in (pair.chosen, pair.rejected))
    assert rows.train.trained_tokens == both


@pytest.mark.parametrize(
    ("overlong", "kept", "dropped", "truncated"), [("truncate", [0, 1, 3], 1, 1), ("drop", [0, 3], 2, 0)]
)
def test_pairs_that_are_cut_or_lose_an_answer_are_counted(
    tmp_path: Path, tokenizer: Any, overlong: str, kept: list[int], dropped: int, truncated: int
) -> None:
    long_answer: Pair = (QUESTION, ANSWER, say("red " * 200))
    long_prompt: Pair = ([{"role": "user", "content": "red " * 200}], ANSWER, say("Green."))
    rows = load(tmp_path, [PAIRS[0], long_answer, long_prompt, PAIRS[1]], max_length=100, overlong_rows=overlong)
    assert len(rows.train) == len(kept)
    assert (rows.counts.rows, rows.counts.dropped.count, rows.counts.truncated.count) == (4, dropped, truncated)


def test_a_row_that_is_no_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError, match="row 2 cannot be used with this model"):
        load(tmp_path, [PAIRS[0], (QUESTION, QUESTION, ANSWER)])
