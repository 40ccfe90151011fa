"""The rows of a job: encoded, or kept from an earlier job, and split into training and eval rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.errors import DatasetFormatError, Fault
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext
from worker.training.callback import check_cancelled
from worker.training.data import EncodedRow, TemplateMismatch, encode_turns
from worker.training.encoded import Sequences, TokenWriter
from worker.training.reading import check_unchanged, messages_of, read_as, row_error, split_rows, text_of
from worker.training.texts import encode_text
from worker.training.token_cache import Counts, find_or_encode, what_decides

logger = logging.getLogger(__name__)

_CHECKED_ROWS = 200  # a stop request is looked for after so many
_LOGGED_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """What a job trains on and is measured by. `held_out` are the eval rows' numbers in the dataset, from 0."""

    train: Sequences
    evaluation: Sequences
    held_out: list[int]
    counts: Counts


def load_rows(context: JobContext, tokenizer: Any, spec: TrainingSpec) -> EncodedRows:
    """The payload's dataset, encoded. Raises: DatasetFormatError naming the row, DiskFull, JobCancelled."""
    dataset = context.payload["dataset"]
    path, model_folder = Path(dataset["path"]), Path(context.payload["base_model"]["path"])
    decides = what_decides(tokenizer, model_folder, check_unchanged(path, dataset.get("sha256")), spec)

    def encode(writer: TokenWriter) -> Counts:
        return _encode_all(context, tokenizer, spec, writer)

    sequences, counts = find_or_encode(
        Path(dataset["tokens"]), decides, path.stat().st_size, encode, lambda: check_cancelled(context)
    )
    _, held_out = split_rows(counts.rows, spec.eval_fraction, spec.seed)
    rows = EncodedRows(*sequences.split(held_out), held_out, counts)
    _refuse_if_none(rows, spec, dataset["name"])
    _log(rows, spec)
    return rows


def _refuse_if_none(rows: EncodedRows, spec: TrainingSpec, name: str) -> None:
    if not rows.train:
        message = f"of rows 1 to {rows.counts.rows} of {name}, none to train on keeps a token to learn"
        fault = Fault("max_length", f"{message} within max_length = {spec.max_length}", _advice(spec.task))
        raise DatasetFormatError([fault])


def _advice(task: str) -> str:
    return f"Raise max_length, or look at these rows' {'texts' if task == 'text' else 'answers'}."


def _log(rows: EncodedRows, spec: TrainingSpec) -> None:
    counts = rows.counts
    logger.info(
        "%d sequences to train on, %d held out; %d rows cut to %d tokens, %d rows dropped as too long or empty",
        len(rows.train), len(rows.evaluation), counts.truncated, spec.max_length, counts.dropped,
    )  # fmt: skip
    if counts.split and spec.task == "text":
        logger.info("%d rows are longer than max_length and became several sequences", counts.split)
    elif counts.split:
        logger.info(
            "the chat template rewrites earlier turns: %d rows became one sequence for each answer", counts.split
        )


def _encode_all(context: JobContext, tokenizer: Any, spec: TrainingSpec, writer: TokenWriter) -> Counts:
    counts = Counts()
    for sequences in _encoded(context.payload["dataset"]["path"], tokenizer, spec):
        if counts.rows % _CHECKED_ROWS == 0:
            check_cancelled(context)
        for sequence in _kept(sequences, counts, drop_overlong=spec.overlong_rows == "drop"):
            writer.add(counts.rows, sequence)
        counts.rows += 1
        if counts.rows % _LOGGED_ROWS == 0:
            logger.info("%d rows tokenized", counts.rows)
    return counts


def _kept(sequences: Sequence[EncodedRow], counts: Counts, *, drop_overlong: bool) -> list[EncodedRow]:
    """One row's sequences, except those with nothing to learn; what became of the row is counted."""
    overlong = any(sequence.truncated for sequence in sequences)
    kept = [] if overlong and drop_overlong else [one for one in sequences if one.trained_tokens]
    counts.dropped += not kept
    counts.truncated += bool(kept) and overlong
    counts.split += bool(kept) and len(sequences) > 1
    return kept


def _encoded(path: str, tokenizer: Any, spec: TrainingSpec) -> Iterator[list[EncodedRow]]:
    """The sequences of each row. Raises: DatasetFormatError naming the row."""
    take = text_of if spec.task == "text" else messages_of
    for number, row in enumerate(read_as(Path(path), take), start=1):
        try:
            yield _encode(tokenizer, row, spec)
        except TemplateMismatch as error:
            raise row_error(number, f"cannot be used with this model: {error}", "Change or remove this row.") from error


def _encode(tokenizer: Any, row: Any, spec: TrainingSpec) -> list[EncodedRow]:
    if spec.task == "text":
        return encode_text(tokenizer, row, spec.max_length, split=spec.overlong_rows == "split")
    return encode_turns(tokenizer, row, spec.max_length)
