"""Plain text: all of it is learned, its end once, and no beginning twice."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from tests.worker.encoders import encode_text
from tests.worker.tiny import make_tokenizer
from worker.training.data import IGNORED_LABEL

pytestmark = pytest.mark.model

TEXT = "Box 1 is red. Box 2 is blue."
BOS, EOS = "<|endoftext|>", "<|im_end|>"


def make(*, template: str | None = None, eos: str | None = EOS) -> Any:
    """A tokenizer whose texts follow `template`, as `BOS $A`."""
    tokenizer = make_tokenizer()
    tokenizer.bos_token, tokenizer.eos_token = BOS, eos
    if template:
        pieces = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (BOS, EOS) if token in template]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=pieces)
    return tokenizer


@pytest.mark.parametrize(
    ("template", "begins"),
    [(None, ""), (f"{BOS} $A", BOS), (f"{BOS} $A {EOS}", BOS), (f"$A {EOS}", "")],
)
@pytest.mark.parametrize("written", [TEXT, f"{TEXT}{EOS}", f"{TEXT}{EOS}{EOS}"])
def test_text_begins_as_the_tokenizer_begins_it_and_ends_once(template: str | None, begins: str, written: str) -> None:
    tokenizer = make(template=template)
    (row,) = encode_text(tokenizer, written, 100)
    assert tokenizer.decode(row.input_ids) == f"{begins}{TEXT}{EOS}"


def test_a_beginning_that_the_text_spells_is_not_doubled() -> None:
    tokenizer = make(template=f"{BOS} $A")
    assert encode_text(tokenizer, BOS + TEXT, 100) == encode_text(tokenizer, TEXT, 100)


def test_without_an_end_of_sequence_token_nothing_is_added() -> None:
    tokenizer = make(eos=None)
    (row,) = encode_text(tokenizer, TEXT, 100)
    assert tokenizer.decode(row.input_ids) == TEXT


def test_everything_is_learned_but_the_first_token_which_nothing_predicts() -> None:
    (row,) = encode_text(make(), TEXT, 100)
    assert row.labels == [IGNORED_LABEL, *row.input_ids[1:]]
    assert row.trained_tokens == len(row.input_ids) - 1


def test_cut_text_has_no_end() -> None:
    tokenizer = make()
    (whole,), (cut,) = encode_text(tokenizer, TEXT, 100), encode_text(tokenizer, TEXT, 10)
    assert cut.input_ids == whole.input_ids[:10]
    assert tokenizer.eos_token_id not in cut.input_ids
    assert (cut.truncated, whole.truncated, cut.total_tokens) == (True, False, len(whole.input_ids))


@pytest.mark.parametrize("text", [TEXT * n for n in range(1, 9)])
def test_split_text_loses_nothing_and_every_window_can_be_learned(text: str) -> None:
    tokenizer = make(template=f"{BOS} $A")
    (whole,) = encode_text(tokenizer, text, 10_000)
    windows = encode_text(tokenizer, text, 9, split=True)
    assert [token for window in windows for token in window.input_ids] == whole.input_ids
    assert all(1 < len(window.input_ids) <= 9 for window in windows)
    assert sum(len(window.input_ids) == 9 for window in windows) >= len(windows) - 2
    assert [tokenizer.eos_token_id in window.input_ids for window in windows] == [False] * (len(windows) - 1) + [True]
    assert not any(window.truncated for window in windows)


def test_one_token_over_takes_another_along() -> None:
    tokenizer = make()
    (whole,) = encode_text(tokenizer, TEXT, 100)
    windows = encode_text(tokenizer, TEXT, len(whole.input_ids) - 1, split=True)
    assert [len(window.input_ids) for window in windows] == [len(whole.input_ids) - 2, 2]


def test_text_that_fits_is_not_split() -> None:
    tokenizer = make()
    (whole,) = encode_text(tokenizer, TEXT, 100)
    assert encode_text(tokenizer, TEXT, len(whole.input_ids), split=True) == [whole]
