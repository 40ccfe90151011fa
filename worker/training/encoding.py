"""What a dataset's row becomes: one function for training, and for all that shows or counts what training would see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.jobs.spec import TrainingSpec
from worker.training.data import EncodedRow, encode_turns
from worker.training.pairs import comparable, encode_pair, pair_of
from worker.training.reading import Object, messages_of, text_of
from worker.training.texts import encode_text

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


def encode(tokenizer: Any, row: Any, spec: TrainingSpec) -> Encoding:
    """What `TAKE` took of a row, as the spec's task, max_length and overlong_rows want it. Raises: TemplateMismatch."""
    sequences = _sequences(tokenizer, row, spec)
    dropped = _why_dropped(sequences, spec)
    kept = [] if dropped else [sequence for sequence in sequences if sequence.trained_tokens]
    return Encoding(sequences, kept, dropped)


def _sequences(tokenizer: Any, row: Any, spec: TrainingSpec) -> list[EncodedRow]:
    if spec.task == "dpo":
        return encode_pair(tokenizer, row, spec.max_length)
    if spec.task == "text":
        return encode_text(tokenizer, row, spec.max_length, split=spec.overlong_rows == "split")
    return encode_turns(tokenizer, row, spec.max_length)


def _why_dropped(sequences: list[EncodedRow], spec: TrainingSpec) -> Dropped | None:
    learned = [sequence.trained_tokens > 0 for sequence in sequences]
    if spec.overlong_rows == "drop" and any(sequence.truncated for sequence in sequences):
        return Dropped.TOO_LONG
    if not (all(learned) if spec.task == "dpo" else any(learned)):
        return Dropped.NOTHING_LEARNED
    return Dropped.ALIKE if spec.task == "dpo" and not comparable(sequences) else None
