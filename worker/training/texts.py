"""From plain text to token ids and labels: all of it is learned, its end too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.training.data import IGNORED_LABEL, EncodedRow


def encode_texts(tokenizer: Any, texts: Sequence[str], max_length: int, *, split: bool) -> list[list[EncodedRow]]:
    """Each text as one sequence, cut from the end where it is too long, or `split` into windows in its order.

    It begins as the tokenizer begins a text, and ends with the end-of-sequence token where the tokenizer has one, each
    once whatever the text spells. A sequence's first token has no label, since nothing predicts it.
    """
    found = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
    return [_sequences(_ended(tokenizer, ids), max_length, split=split) for ids in found]


def _sequences(ids: list[int], max_length: int, *, split: bool) -> list[EncodedRow]:
    if split and len(ids) > max_length:
        return [_learned(window, len(window)) for window in _windows(ids, max_length)]
    return [_learned(ids[:max_length], len(ids))]


def _ended(tokenizer: Any, ids: list[int]) -> list[int]:
    """With one token of each kind at the beginning and at the end."""
    while len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    if tokenizer.eos_token_id is None:
        return ids
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return [*ids, tokenizer.eos_token_id]


def _windows(ids: list[int], max_length: int) -> list[list[int]]:
    """Consecutive windows. One token alone could not be learned, so the last window takes another one along."""
    starts = list(range(0, len(ids), max_length))
    if len(ids) - starts[-1] == 1:
        starts[-1] -= 1
    ends = [*starts[1:], len(ids)]
    return [ids[start:end] for start, end in zip(starts, ends, strict=True)]


def _learned(ids: list[int], total_tokens: int) -> EncodedRow:
    return EncodedRow(ids, [IGNORED_LABEL, *ids[1:]], total_tokens)
