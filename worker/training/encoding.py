"""What a dataset's row becomes: one function for training, and for all that shows or counts what training would see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.datasets.lines import count_characters
from app.core.jobs.spec import TrainingSpec
from worker.training.data import EncodedRow, RowTokenizer, TemplateMismatch, turns_encoder
from worker.training.pairs import comparable, pair_encoder, pair_of
from worker.training.reading import Object, messages_of, text_of
from worker.training.texts import encode_texts
from worker.training.tokens import encode_together

# What of a normalised row is encoded, by task.
TAKE: Mapping[str, Callable[[Object], Any]] = {"sft": messages_of, "dpo": pair_of, "text": text_of}


class Dropped(StrEnum):
    """Why a row is not trained on."""

    TOO_LONG = "too_long"  # and `overlong_rows` is drop
    NOTHING_LEARNED = "nothing_learned"  # no sequence, or not both of a pair, keeps a token to learn
    ALIKE = "alike"  # the two answers of a pair are the same once they are cut


@dataclass(frozen=True, slots=True)
class Encoding:
    """All sequences of a row (of a pair: chosen, rejected), and those of them that are trained on."""

    sequences: list[EncodedRow]
    kept: list[EncodedRow]
    dropped: Dropped | None

    @property
    def truncated(self) -> bool:
        """Whether something of the row was cut."""
        return any(sequence.truncated for sequence in self.sequences)


Encoded = Encoding | TemplateMismatch
_BATCH_ROWS = 64  # encoded together, at most
_BATCH_CHARACTERS = 1_000_000


def is_full(rows: int, characters: int) -> bool:
    """Whether so many rows, which hold so many characters, should be encoded before more are taken."""
    return rows >= _BATCH_ROWS or characters > _BATCH_CHARACTERS


def in_batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows in their order, as many at a time as are well encoded together: few where they are long."""
    batch: list[Any] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += count_characters(row)
        if is_full(len(batch), characters):
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def encode(tokenizer: Any, row: Any, spec: TrainingSpec) -> Encoding:
    """What `TAKE` took of a row, as the spec's task, max_length and overlong_rows want it. Raises: TemplateMismatch."""
    (found,) = encode_all(tokenizer, [row], spec)
    if isinstance(found, TemplateMismatch):
        raise found
    return found


def encode_all(tokenizer: Any, rows: Sequence[Any], spec: TrainingSpec) -> list[Encoded]:
    """What `encode` returns of each row, or the TemplateMismatch that it raises; together they take less time."""
    return [
        found if isinstance(found, TemplateMismatch) else _decide(found, spec)
        for found in _sequences(tokenizer, rows, spec)
    ]


def _sequences(tokenizer: Any, rows: Sequence[Any], spec: TrainingSpec) -> list[Any]:
    """Of each row its sequences, or a TemplateMismatch."""
    if spec.task == "text":
        return encode_texts(tokenizer, rows, spec.max_length, split=spec.overlong_rows == "split")
    shared, make = RowTokenizer(tokenizer), pair_encoder if spec.task == "dpo" else turns_encoder
    return encode_together(tokenizer, [make(shared, row, spec.max_length) for row in rows], TemplateMismatch)


def _decide(sequences: list[EncodedRow], spec: TrainingSpec) -> Encoding:
    dropped = _why_dropped(sequences, spec)
    kept = [] if dropped else [sequence for sequence in sequences if sequence.trained_tokens]
    return Encoding(sequences, kept, dropped)


def _why_dropped(sequences: list[EncodedRow], spec: TrainingSpec) -> Dropped | None:
    learned = [sequence.trained_tokens > 0 for sequence in sequences]
    if spec.overlong_rows == "drop" and any(sequence.truncated for sequence in sequences):
        return Dropped.TOO_LONG
    if not (all(learned) if spec.task == "dpo" else any(learned)):
        return Dropped.NOTHING_LEARNED
    return Dropped.ALIKE if spec.task == "dpo" and not comparable(sequences) else None
