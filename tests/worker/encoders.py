"""One row at a time, as encoders of many make it."""

from __future__ import annotations

from typing import Any

from worker.training.data import EncodedRow, RowTokenizer, TemplateMismatch, turns_encoder
from worker.training.pairs import Pair, pair_encoder
from worker.training.reading import Messages
from worker.training.texts import encode_texts
from worker.training.tokens import Encoder, encode_together


def encode_turns(tokenizer: Any, messages: Messages, max_length: int) -> list[EncodedRow]:
    return _alone(tokenizer, turns_encoder(RowTokenizer(tokenizer), messages, max_length))


def encode_pair(tokenizer: Any, pair: Pair, max_length: int) -> list[EncodedRow]:
    return _alone(tokenizer, pair_encoder(RowTokenizer(tokenizer), pair, max_length))


def encode_text(tokenizer: Any, text: str, max_length: int, *, split: bool = False) -> list[EncodedRow]:
    (sequences,) = encode_texts(tokenizer, [text], max_length, split=split)
    return sequences


def _alone(tokenizer: Any, encoder: Encoder[list[EncodedRow]]) -> list[EncodedRow]:
    (found,) = encode_together(tokenizer, [encoder], TemplateMismatch)
    if isinstance(found, TemplateMismatch):
        raise found
    sequences: list[EncodedRow] = found
    return sequences
