"""The job behind the X-ray: rows as training would see them, encoded without torch, written to a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from app.core.datasets.xray import XRAY_FILE, Packing, Xray, suspicious
from app.core.errors import JobCancelled
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.paths import write_private
from worker.context import JobContext
from worker.datasets.examined import Examined, Examiner
from worker.datasets.template_guard import guard_template
from worker.datasets.token_texts import TokenTexts
from worker.datasets.xray import Packs, lengths_to_pack, plan_packs, show
from worker.training.data import ensure_chat_template
from worker.training.encoding import TAKE, in_batches
from worker.training.reading import read_as, split_rows
from worker.training.tokenizer import load_tokenizer

WINDOW_TOKENS = 131_072  # a window ends early with the row that brings it to so many
SEARCHED_ROWS = 20_000
SEARCH_SECONDS = 20.0
PACK_SECONDS = 15.0  # to tokenize all rows; of a dataset that takes longer only the rows shown are packed
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Asked:
    """What a preview job was asked for: `rows` rows from `first` on, or from the first suspicious one found there."""

    spec: TrainingSpec
    first: int
    rows: int
    find: bool
    total: int  # rows of the dataset

    @classmethod
    def of(cls, values: dict[str, Any]) -> Asked:
        """From the job's spec."""
        return cls(parse_spec(values["training"]), *(values[name] for name in ("first", "rows", "find", "total")))


class Reader:
    """Examines a dataset's rows in their order, and listens for a stop meanwhile."""

    def __init__(self, context: JobContext, tokenizer: Any, asked: Asked) -> None:
        self._context = context
        self._asked = asked
        self._path = Path(context.payload["dataset"]["path"])
        spec = asked.spec
        _, held_out = split_rows(asked.total, spec.eval_fraction, spec.seed, spec.eval_max_rows)
        self._examiner = Examiner(tokenizer, spec, held_out)
        self._reported_at = time.monotonic()

    def examine(self, first: int, goal: int) -> Iterator[Examined]:
        """Rows from `first` on; the way to `goal` rows is reported. Raises: JobCancelled, DatasetFormatError."""
        rows = read_as(self._path, TAKE[self._asked.spec.task], range(first - 1, self._asked.total))
        number = first
        for batch in in_batches(rows):
            if self._context.stop_request is not None:
                raise JobCancelled()
            if time.monotonic() - self._reported_at > _REPORT_SECONDS:
                self._reported_at = time.monotonic()
                self._context.spool.progress(number - first, goal)
            yield from self._examiner.examine(number, batch)
            number += len(batch)


def run_preview(context: JobContext) -> dict[str, Any]:
    """Write `preview.json` into the job's folder; returns the summary {first, last, found, searched_to}.

    Payload: spec (see `Asked`), base_model {name, path}, dataset {path}.
    Raises: ModelLoadError, TemplateFault, DatasetFormatError, JobCancelled.
    """
    asked, model = Asked.of(context.payload["spec"]), context.payload["base_model"]
    context.spool.phase("load")
    tokenizer = load_tokenizer(model["path"])
    bare = asked.spec.task != "text" and ensure_chat_template(tokenizer)
    guard_template(tokenizer, model["name"])
    context.spool.phase("tokenize")
    reader, found, searched_to = Reader(context, tokenizer, asked), None, None
    rows = reader.examine(asked.first, min(SEARCHED_ROWS if asked.find else asked.rows, asked.total))
    if asked.find:
        found, searched_to = _search(rows)
        rows = chain([found], rows) if found else iter(())
    window = _window(rows, asked.rows)
    xray = _xray(reader, tokenizer, asked, window, default_template=bare)
    write_private(context.folder / XRAY_FILE, json.dumps(xray))
    ends = {"first": xray["first"], "last": xray["last"]}
    return {**ends, "found": found.number if found else None, "searched_to": searched_to}


def _search(rows: Iterable[Examined]) -> tuple[Examined | None, int]:
    """The first suspicious row, if one comes soon enough, and the number of the last that was looked at."""
    give_up_at, looked_at = time.monotonic() + SEARCH_SECONDS, 0
    for examined in islice(rows, SEARCHED_ROWS):
        looked_at = examined.number
        if suspicious(examined.flags):
            return examined, looked_at
        if time.monotonic() > give_up_at:
            break
    return None, looked_at


def _window(rows: Iterable[Examined], most: int) -> list[Examined]:
    window, tokens = [], 0
    for examined in islice(rows, most):
        window.append(examined)
        tokens += sum(len(each.input_ids) for each in examined.encoding.sequences) if examined.encoding else 0
        if tokens >= WINDOW_TOKENS:
            break
    return window


def _xray(reader: Reader, tokenizer: Any, asked: Asked, window: list[Examined], *, default_template: bool) -> Xray:
    texts = TokenTexts(tokenizer)
    packs, packing = _pack(reader, asked, window) if asked.spec.packing else ({}, None)
    sequences = [each.input_ids for row in window if row.encoding for each in row.encoding.sequences]
    return {
        "first": window[0].number if window else asked.first,
        "last": window[-1].number if window else asked.first - 1,
        "total": asked.total,
        "rows": [show(examined, texts, packs, pair=asked.spec.task == "dpo") for examined in window],
        "packing": packing,
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "default_template": default_template,
        "exact": all(map(texts.spells, sequences)),
    }


def _pack(reader: Reader, asked: Asked, window: list[Examined]) -> tuple[Packs, Packing]:
    """The packs as training makes them of all rows; where those take too long, as if the window's rows were all."""
    lengths, tokenized = _measure(reader.examine(1, asked.total))
    whole = tokenized == asked.total
    if not whole:
        lengths = list(chain.from_iterable(map(lengths_to_pack, window)))
    packs = plan_packs(lengths, asked.spec.max_length)
    numbers = {pack["number"] for of_row in packs.values() for pack in of_row}
    return packs, {"whole": whole, "tokenized": tokenized, "packs": len(numbers), "sequences": len(lengths)}


def _measure(rows: Iterable[Examined]) -> tuple[list[tuple[int, int]], int]:
    """The lengths of all rows, or of as many as can be tokenized in the time, and how many rows that were."""
    give_up_at, lengths, tokenized = time.monotonic() + PACK_SECONDS, [], 0
    for examined in rows:
        lengths += lengths_to_pack(examined)
        tokenized = examined.number
        if time.monotonic() > give_up_at:
            break
    return lengths, tokenized
