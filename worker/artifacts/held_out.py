"""Rows that a training did not learn from, encoded as it encodes them: what a merged model is compared on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.core.jobs.spec import parse_spec
from worker.training.data import EncodedRow, TemplateMismatch, ensure_chat_template
from worker.training.encoding import TAKE, Encoding, encode_all, in_batches
from worker.training.reading import hash_rows, read_as, split_rows

logger = logging.getLogger(__name__)

_LONGEST = 512  # tokens of a row that are compared


def read_held_out(source: Mapping[str, Any] | None, tokenizer: Any, budget_tokens: int) -> list[EncodedRow]:
    """The first eval rows of a training, as many as the budget allows, at least one; none where it held out none.

    `source`: {path, sha256, spec}, or None. Of a pair the chosen side is taken.
    """
    if source is None or _is_gone(Path(source["path"]), source.get("sha256")):
        return []
    spec, path = parse_spec(source["spec"]), Path(source["path"])
    if spec.task != "text":
        ensure_chat_template(tokenizer)
    with path.open("rb") as lines:
        count = sum(1 for _ in lines)
    _, chosen = split_rows(count, spec.eval_fraction, spec.seed, spec.eval_max_rows)
    rows = in_batches(read_as(path, TAKE[spec.task], chosen))
    encoded = (found for batch in rows for found in encode_all(tokenizer, batch, spec))
    return list(_within(_sequences(encoded, pairs=spec.task == "dpo"), budget_tokens))


def _is_gone(path: Path, sha256: str | None) -> bool:
    """Whether the rows are not there any more as the training read them."""
    gone = not path.is_file() or (sha256 is not None and hash_rows(path) != sha256)
    if gone:
        logger.warning("no eval loss: %s is not what was trained on any more", path)
    return gone


def _sequences(encoded: Iterator[Encoding | TemplateMismatch], *, pairs: bool) -> Iterator[EncodedRow]:
    for found in encoded:
        if isinstance(found, Encoding):
            yield from found.kept[:1] if pairs else found.kept


def _within(rows: Iterator[EncodedRow], budget_tokens: int) -> Iterator[EncodedRow]:
    taken = 0
    for row in rows:
        if taken >= budget_tokens:
            return
        cut = EncodedRow(row.input_ids[:_LONGEST], row.labels[:_LONGEST], row.total_tokens, row.number)
        taken += len(cut.input_ids)
        yield cut
