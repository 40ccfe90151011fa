"""The rows of a job: read, split into training and eval rows, encoded; what was cut or dropped is counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.errors import DatasetFormatError, Fault
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext
from worker.training.callback import check_cancelled
from worker.training.data import EncodedRow, TemplateMismatch, encode_turns
from worker.training.reading import Messages, read_rows, row_error, split_rows

logger = logging.getLogger(__name__)

_CHECKED_ROWS = 200  # a stop request is looked for after so many
_LOGGED_ROWS = 10_000


@dataclass(slots=True)
class EncodedRows:
    """What a job trains on and is measured by."""

    train: list[EncodedRow] = field(default_factory=list)
    evaluation: list[EncodedRow] = field(default_factory=list)
    eval_messages: list[Messages] = field(default_factory=list)
    dropped: int = 0  # rows whose whole answer lies beyond max_length, or, where asked for, any part of them
    truncated: int = 0  # rows that were cut and still have labels
    split: int = 0  # rows that became one sequence for each answer, since the template rewrites history

    def add(self, sequences: Sequence[EncodedRow], *, held_out: bool, drop_overlong: bool) -> None:
        """Take one row's sequences, except those with nothing to learn, and count what became of the row."""
        overlong = any(sequence.truncated for sequence in sequences)
        kept = [] if overlong and drop_overlong else [one for one in sequences if one.trained_tokens]
        if not kept:
            self.dropped += 1
            return
        self.truncated += overlong
        self.split += len(sequences) > 1
        (self.evaluation if held_out else self.train).extend(kept)


def load_rows(context: JobContext, tokenizer: Any, spec: TrainingSpec) -> EncodedRows:
    """Read and encode the payload's dataset. Raises: DatasetFormatError naming the row, JobCancelled."""
    dataset = context.payload["dataset"]
    messages = list(read_rows(Path(dataset["path"]), dataset.get("sha256")))
    _, held_out = split_rows(len(messages), spec.eval_fraction, spec.seed)
    rows = _encode_all(context, tokenizer, messages, set(held_out), spec)
    rows.eval_messages = [messages[index] for index in held_out]
    if not rows.train:
        which = f"of rows 1 to {len(messages)} of {dataset['name']}, none to train on keeps a token to learn"
        message = f"{which} within max_length = {spec.max_length}"
        raise DatasetFormatError([Fault("max_length", message, "Raise max_length, or look at these rows' answers.")])
    logger.info(
        "%d sequences to train on, %d held out; %d rows cut to %d tokens, %d rows dropped as too long",
        len(rows.train), len(rows.evaluation), rows.truncated, spec.max_length, rows.dropped,
    )  # fmt: skip
    if rows.split:
        logger.info("the chat template rewrites earlier turns: %d rows became one sequence for each answer", rows.split)
    return rows


def _encode_all(
    context: JobContext, tokenizer: Any, messages: Sequence[Messages], held_out: set[int], spec: TrainingSpec
) -> EncodedRows:
    rows = EncodedRows()
    for index, conversation in enumerate(messages):
        if index % _CHECKED_ROWS == 0:
            check_cancelled(context)
        if index and index % _LOGGED_ROWS == 0:
            logger.info("%d of %d rows tokenized", index, len(messages))
        sequences = _encode(tokenizer, conversation, spec.max_length, number=index + 1)
        rows.add(sequences, held_out=index in held_out, drop_overlong=spec.overlong_rows == "drop")
    return rows


def _encode(tokenizer: Any, messages: Messages, max_length: int, number: int) -> list[EncodedRow]:
    try:
        return encode_turns(tokenizer, messages, max_length)
    except TemplateMismatch as error:
        raise row_error(number, f"cannot be used with this model: {error}", "Change or remove this row.") from error
