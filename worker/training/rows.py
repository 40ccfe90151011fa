"""The rows of a job: encoded, or kept from an earlier job, and split into training and eval rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from app.core.datasets.split import share_of
from app.core.errors import DatasetFormatError, Fault, InvalidInput
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext
from worker.training.callback import check_cancelled
from worker.training.data import TemplateMismatch
from worker.training.encoded import Sequences, TokenWriter
from worker.training.encoding import TAKE, Encoding, encode_all, in_batches
from worker.training.pairs import Pairs
from worker.training.reading import check_unchanged, read_as, row_error, split_rows
from worker.training.token_cache import Counts, find_or_encode, what_decides

logger = logging.getLogger(__name__)

_CHECKED_ROWS = 200  # a stop request is looked for after so many
_LOGGED_ROWS = 10_000


Examples = Sequences | Pairs


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """What a job trains on and is measured by. `held_out` are the eval rows' numbers in the dataset, from 0."""

    train: Examples
    evaluation: Examples
    held_out: list[int]
    counts: Counts
    left_to_train: int = 0  # rows that eval_fraction would have held out, too, but for eval_max_rows


def load_rows(context: JobContext, tokenizer: Any, spec: TrainingSpec, vocabulary: int | None = None) -> EncodedRows:
    """The payload's dataset, encoded for a model that knows so many tokens.

    Raises: DatasetFormatError naming the row, InvalidInput, DiskFull, JobCancelled.
    """
    dataset = context.payload["dataset"]
    path, model_folder = Path(dataset["path"]), Path(context.payload["base_model"]["path"])
    decides = what_decides(tokenizer, model_folder, check_unchanged(path, dataset.get("sha256")), spec)

    def encode(writer: TokenWriter) -> Counts:
        return _encode_all(context, tokenizer, spec, writer)

    sequences, counts = find_or_encode(
        Path(dataset["tokens"]), decides, path.stat().st_size, encode, lambda: check_cancelled(context)
    )
    _refuse_unknown_token(sequences, tokenizer, vocabulary)
    _, held_out = split_rows(counts.rows, spec.eval_fraction, spec.seed, spec.eval_max_rows)
    left_to_train = share_of(counts.rows, spec.eval_fraction) - len(held_out)
    train, evaluation = sequences.split(held_out)
    if spec.task == "dpo":
        rows = EncodedRows(Pairs(train), Pairs(evaluation), held_out, counts, left_to_train)
    else:
        rows = EncodedRows(train, evaluation, held_out, counts, left_to_train)
    _refuse_if_none(rows, spec, dataset["name"])
    _require_eval_rows(rows, spec, dataset["name"])
    _log(rows, spec)
    return rows


def _refuse_unknown_token(sequences: Sequences, tokenizer: Any, vocabulary: int | None) -> None:
    """A tokenizer may have got tokens that the model was not grown for: its embeddings cannot be asked for them."""
    found = None if vocabulary is None else sequences.find_token(vocabulary)
    if found is not None:
        token, row = found
        spelled = tokenizer.convert_ids_to_tokens(token)
        message = (
            f"has embeddings for {vocabulary:,} tokens, but row {row} has the token {spelled} with the id {token:,}"
        )
        advice = "Grow it once (`model.resize_token_embeddings(len(tokenizer))`, save it), and register that folder."
        raise InvalidInput([Fault("base_model", message, advice)])


def _refuse_if_none(rows: EncodedRows, spec: TrainingSpec, name: str) -> None:
    if not rows.train:
        message = f"of rows 1 to {rows.counts.rows} of {name}, none to train on keeps a token to learn"
        fault = Fault("max_length", f"{message} within max_length = {spec.max_length}", _advice(spec.task))
        raise DatasetFormatError([fault])


def _require_eval_rows(rows: EncodedRows, spec: TrainingSpec, name: str) -> None:
    """Where all rows that are held out were dropped: without an eval loss nothing is stopped early."""
    if rows.evaluation or not rows.held_out:
        return
    message = f"none of the {len(rows.held_out)} rows held out of {name} keeps a token to learn"
    if spec.early_stopping_patience:
        fault = Fault("early_stopping_patience", f"needs an eval loss, and {message}", _advice(spec.task))
        raise DatasetFormatError([fault])
    logger.warning("there will be no eval loss: %s", message)


def _advice(task: str) -> str:
    return f"Raise max_length, or look at these rows' {'texts' if task == 'text' else 'answers'}."


def _log(rows: EncodedRows, spec: TrainingSpec) -> None:
    counts = rows.counts
    logger.info(
        "%d %s to train on, %d held out; %s cut to %d tokens, %s dropped as too long or empty",
        len(rows.train), "pairs" if spec.task == "dpo" else "sequences",
        len(rows.evaluation), counts.truncated, spec.max_length, counts.dropped,
    )  # fmt: skip
    if rows.left_to_train:
        logger.info(
            "%d rows are held out, as eval_max_rows says; eval_fraction = %g alone would hold out %d",
            len(rows.held_out), spec.eval_fraction, len(rows.held_out) + rows.left_to_train,
        )  # fmt: skip
    if counts.split.count and spec.task == "text":
        logger.info("longer than max_length, and now several sequences: %s", counts.split)
    elif counts.split.count:
        logger.info("answers that the chat template rewrites or does not end: a sequence for each of %s", counts.split)


def _encode_all(context: JobContext, tokenizer: Any, spec: TrainingSpec, writer: TokenWriter) -> Counts:
    counts = Counts()
    for encoding in _encoded(context.payload["dataset"]["path"], tokenizer, spec):
        if counts.rows % _CHECKED_ROWS == 0:
            check_cancelled(context)
        for sequence in encoding.kept:
            writer.add(counts.rows, sequence)
        _count(counts, encoding, spec)
        if counts.rows % _LOGGED_ROWS == 0:
            logger.info("%d rows tokenized", counts.rows)
    return counts


def _count(counts: Counts, encoding: Encoding, spec: TrainingSpec) -> None:
    """What became of the next row."""
    counts.rows += 1
    if encoding.dropped:
        counts.dropped.add(counts.rows)
        return
    if encoding.truncated:
        counts.truncated.add(counts.rows)
    if len(encoding.sequences) > (2 if spec.task == "dpo" else 1):
        counts.split.add(counts.rows)


def _encoded(path: str, tokenizer: Any, spec: TrainingSpec) -> Iterator[Encoding]:
    """What each row becomes. Raises: DatasetFormatError naming the row."""
    batches = in_batches(read_as(Path(path), TAKE[spec.task]))
    encoded = chain.from_iterable(encode_all(tokenizer, batch, spec) for batch in batches)
    for number, found in enumerate(encoded, start=1):
        if isinstance(found, TemplateMismatch):
            raise row_error(number, f"cannot be used with this model: {found}", "Change or remove this row.") from found
        yield found
