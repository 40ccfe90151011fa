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
from worker.training.data import EncodedRow, Messages, TemplateMismatch, encode_row, read_rows, row_error, split_rows

logger = logging.getLogger(__name__)

_PROGRESS_ROWS = 200


@dataclass(slots=True)
class EncodedRows:
    """What a job trains on and is measured by."""

    train: list[EncodedRow] = field(default_factory=list)
    evaluation: list[EncodedRow] = field(default_factory=list)
    eval_messages: list[Messages] = field(default_factory=list)
    dropped: int = 0  # rows whose whole answer lies beyond max_length
    truncated: int = 0  # rows that were cut and still have labels


def load_rows(context: JobContext, tokenizer: Any, spec: TrainingSpec) -> EncodedRows:
    """Read and encode the payload's dataset. Raises: DatasetFormatError naming the row, JobCancelled."""
    dataset = context.payload["dataset"]
    messages = list(read_rows(Path(dataset["path"]), dataset.get("sha256")))
    _, held_out = split_rows(len(messages), spec.eval_fraction, spec.seed)
    rows = _encode_all(context, tokenizer, messages, set(held_out), spec.max_length)
    rows.eval_messages = [messages[index] for index in held_out]
    if not rows.train:
        which = f"of rows 1 to {len(messages)} of {dataset['name']}, none to train on keeps a token to learn"
        message = f"{which} within max_length = {spec.max_length}"
        raise DatasetFormatError([Fault("max_length", message, "Raise max_length, or look at these rows' answers.")])
    logger.info(
        "%d rows to train on, %d held out, %d cut to %d tokens, %d dropped because their whole answer was cut off",
        len(rows.train), len(rows.evaluation), rows.truncated, spec.max_length, rows.dropped,
    )  # fmt: skip
    return rows


def _encode_all(
    context: JobContext, tokenizer: Any, messages: Sequence[Messages], held_out: set[int], max_length: int
) -> EncodedRows:
    rows = EncodedRows()
    for index, conversation in enumerate(messages):
        if index % _PROGRESS_ROWS == 0:
            check_cancelled(context)
            context.spool.progress(index, len(messages))
        row = _encode(tokenizer, conversation, max_length, number=index + 1)
        if not row.trained_tokens:
            rows.dropped += 1
            continue
        rows.truncated += row.truncated
        (rows.evaluation if index in held_out else rows.train).append(row)
    return rows


def _encode(tokenizer: Any, messages: Messages, max_length: int, number: int) -> EncodedRow:
    try:
        return encode_row(tokenizer, messages, max_length)
    except TemplateMismatch as error:
        raise row_error(number, f"cannot be used with this model: {error}", "Change or remove this row.") from error
