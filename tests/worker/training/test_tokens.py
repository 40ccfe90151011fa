"""Rows that are tokenized together, in pieces, become what the plain rules make of each alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from app.core.datasets.normalise import normalise
from app.core.demo import demo_dataset_file
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import ROWS, make_tokenizer
from tests.worker.training.test_chat_templates import FAMILIES, TWO, family_tokenizer
from worker.training import tokens
from worker.training.data import IGNORED_LABEL, EncodedRow, TemplateMismatch, special_ids
from worker.training.encoding import TAKE, encode, encode_all
from worker.training.reading import Messages, read_as
from worker.training.tokens import Cuts

pytestmark = pytest.mark.model

SAMPLES = os.environ.get("LORADECK_TEST_DATA")  # a folder with alpaca_en_demo.json and dpo_en_demo.json
OF_SAMPLES = pytest.mark.skipif(not SAMPLES, reason="LORADECK_TEST_DATA names no folder with sample files")


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


OPENED = "<think>\n"  # how some prompts end whose answers show no reasoning: it is closed at once


def by_plain_rules(tokenizer: Any, messages: Messages, answers: Sequence[int]) -> EncodedRow | None:
    """Every rendering tokenized whole; None where it is refused."""
    ids: list[int] = []
    labels: list[int] = []
    texts = [""]
    for index in answers:
        texts += [
            tokenizer.apply_chat_template(messages[:end], tokenize=False, add_generation_prompt=prompt)
            for end, prompt in ((index, True), (index + 1, False))
        ]
    if len(answers) == 1 and texts[1].endswith(OPENED) and not texts[2].startswith(texts[1]):
        texts[2] = f"{texts[1]}\n</think>\n\n" + texts[2][len(texts[1]) - len(OPENED) :].lstrip("\n")
    for step, (text, longer) in enumerate(pairwise(texts)):
        assert longer.startswith(text)
        whole = plain_ids(tokenizer, longer)
        added = whole[len(ids) :] if whole[: len(ids)] == ids else plain_ids(tokenizer, longer[len(text) :])
        if tokenizer.decode(ids + added) != tokenizer.decode(whole):
            return None
        ids = ids + added
        labels += plain_labels(tokenizer, added) if step % 2 else [IGNORED_LABEL] * len(added)
    return EncodedRow(ids, labels, len(ids))


def plain_labels(tokenizer: Any, ids: list[int]) -> list[int]:
    special = special_ids(tokenizer)
    ends = [place + 1 for place, number in enumerate(ids) if number in special]
    end = ends[-1] if ends and not tokenizer.decode(ids[ends[-1] :]).strip() else len(ids)
    return ids[:end] + [IGNORED_LABEL] * (len(ids) - end)


def expected(tokenizer: Any, messages: Messages) -> list[EncodedRow] | None:
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    try:
        rows = [by_plain_rules(tokenizer, messages, answers)]
    except AssertionError:
        rows = [by_plain_rules(tokenizer, messages, [index]) for index in answers]
    return None if None in rows else [row for row in rows if row is not None]


def found(tokenizer: Any, rows: Sequence[Messages]) -> list[list[EncodedRow] | None]:
    spec = parse_spec({"base_model": "m", "dataset": "d", "task": "sft", "max_length": 100_000})
    return [
        None if isinstance(each, TemplateMismatch) else each.sequences for each in encode_all(tokenizer, rows, spec)
    ]


AWKWARD = [
    "\n\nBox", "  two spaces  ", "<|im_end|>", "a<|im_start|>assistant\nb", "<|end|", "<|im_end|>\n<|im_end|>",
    "⚓ 日本語 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "</s><s>[INST]", "\t", "x" * 3000, "end\r\n", "<think>\n\n</think>\n\nYes.", "\uff1c|im_end|\uff1e",
]  # fmt: skip


def awkward_rows() -> list[Messages]:
    asked = [[{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}] for text in AWKWARD]
    told = [[{"role": "user", "content": "Go on."}, {"role": "assistant", "content": text}] for text in AWKWARD]
    return [*asked, *told, [*asked[0], *told[1], *told[2]], [*asked[3], *told[5], *asked[0]], *ROWS, TWO]


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_together_are_encoded_as_each_alone_by_plain_rules(name: str) -> None:
    tokenizer, rows = family_tokenizer(name), awkward_rows()
    assert found(tokenizer, rows) == [expected(tokenizer, row) for row in rows]


def word_tokenizer(*added: AddedToken) -> Any:
    """Words behind `▁`, as of SentencePiece; only the first of a text has none, and letters are made small."""
    words = {"<unk>": 0, "▁": 1, **{chr(number): number for number in range(2, 0x100)}}
    inner = Tokenizer(models.BPE(words, merges=[("▁", "a"), ("b", "o")] if "▁a" in words else [], unk_token="<unk>"))
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    tokenizer.add_tokens(list(added))
    tokenizer.chat_template = make_tokenizer().chat_template
    return tokenizer


MARKS = ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    "flags",
    [{}, {"rstrip": True}, {"lstrip": True}, {"single_word": True}, {"normalized": True}],
    ids=["plain", "rstrip", "lstrip", "single_word", "normalized"],
)
def test_added_tokens_of_any_kind_are_cut_at_only_where_that_changes_no_ids(flags: dict[str, bool]) -> None:
    kinds = {"special": True, "normalized": False, **flags}
    added = [AddedToken(mark, **kinds) for mark in MARKS]
    tokenizer = word_tokenizer(*added, AddedToken("<|im_end|><|im_end|>", special=False, normalized=False))
    rows = awkward_rows()
    assert found(tokenizer, rows) == [expected(tokenizer, row) for row in rows]
    cuts = Cuts(tokenizer).before("a<|im_start|>b", [14])
    assert cuts == [1 if flags in ({}, {"rstrip": True}) else 0]


def test_marks_that_the_tokenizer_is_told_to_split_are_no_cuts() -> None:
    tokenizer = make_tokenizer()
    assert Cuts(tokenizer).before("a<|im_start|>b", [5, 14]) == [0, 1]
    tokenizer.split_special_tokens = True
    assert Cuts(tokenizer).before("a<|im_start|>b", [5, 14]) == [0, 0]


@pytest.mark.parametrize(
    ("source", "task"),
    [
        pytest.param(demo_dataset_file(), "sft", id="demo"),
        pytest.param("alpaca_en_demo.json", "sft", marks=OF_SAMPLES, id="alpaca"),
        pytest.param("dpo_en_demo.json", "dpo", marks=OF_SAMPLES, id="preferences"),
    ],
)
def test_every_row_is_the_same_alone_and_in_a_batch(source: str | Path, task: str, tmp_path: Path) -> None:
    path = Path(SAMPLES or "", source)
    normalise(path, tmp_path / "rows.jsonl", suffix=path.suffix, columns=None)
    rows = list(read_as(tmp_path / "rows.jsonl", TAKE[task]))
    spec = parse_spec({"base_model": "m", "dataset": "d", "task": task, "max_length": 256})
    tokenizer = make_tokenizer()
    assert encode_all(tokenizer, rows, spec) == [encode(tokenizer, row, spec) for row in rows]
    if task == "sft":
        whole = found(tokenizer, rows)
        assert whole == [expected(tokenizer, row) for row in rows]
        assert len(whole) > 100


def test_no_part_of_a_long_conversation_is_tokenized_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, asked = make_tokenizer(), []
    tokenize = tokens._tokenize

    def counted(tokenizer: Any, texts: Sequence[str]) -> dict[str, list[int]]:
        asked.extend(texts)
        return tokenize(tokenizer, texts)

    monkeypatch.setattr(tokens, "_tokenize", counted)
    conversation = [turn for row in ROWS for turn in row] * 4
    (sequences,) = found(tokenizer, [conversation])
    length = len(tokenizer.apply_chat_template(conversation, tokenize=False))
    assert sequences is not None
    assert sum(map(len, asked)) < 1.2 * length
