"""How long rows are under a model, counted by the function that training calls, and what max_length costs."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from app.core.datasets.kinds import RowKind
from app.core.datasets.report import Choice, Histogram, Tokens
from app.core.jobs.spec import TrainingSpec
from worker.training.data import TemplateMismatch
from worker.training.encoding import Encoded, Encoding, encode_all

TASK_OF = {RowKind.MESSAGES: "sft", RowKind.PREFERENCE: "dpo", RowKind.TEXT: "text"}
BARS = 32  # of the histogram, about
_SHARE_IN_BARS = 0.99  # of the rows; the rest, which would squeeze them, is counted as `over`


class Lengths:
    """Measures rows one by one under the spec's task and max_length, whatever its overlong_rows."""

    def __init__(self, tokenizer: Any, spec: TrainingSpec) -> None:
        self._tokenizer = tokenizer
        self._spec = spec
        self._specs = {
            name: spec.model_copy(update={"overlong_rows": name})
            for name in (["split"] if spec.task == "text" else []) + ["truncate", "drop"]
        }
        self._longest = array("q")
        self._kept = {name: [0, 0] for name in self._specs}  # rows, learned tokens
        self._total = self._truncated = self._answer_lost = self._rewritten = self._refused = 0

    def add(self, rows: Sequence[Any]) -> list[Encoded]:
        """Rows as `TAKE` takes them; returns each cut to max_length, or why the chat template refuses it."""
        encoded = encode_all(self._tokenizer, rows, self._specs["truncate"])
        windows = self._split(rows, encoded)
        for cut in encoded:
            if isinstance(cut, TemplateMismatch):
                self._refused += 1
            else:
                self._count(cut, windows)
        return encoded

    def _split(self, rows: Sequence[Any], encoded: Sequence[Encoded]) -> Iterator[Encoded]:
        """Those that are too long, as `split` treats them."""
        if "split" not in self._specs:
            return iter(())
        overlong = [row for row, cut in zip(rows, encoded, strict=True) if isinstance(cut, Encoding) and cut.truncated]
        return iter(encode_all(self._tokenizer, overlong, self._specs["split"]))

    def _count(self, cut: Encoding, windows: Iterator[Encoded]) -> None:
        self._longest.append(max(sequence.total_tokens for sequence in cut.sequences))
        self._total += sum(sequence.total_tokens for sequence in cut.sequences)
        self._truncated += cut.truncated
        self._answer_lost += answer_lost(cut)
        self._rewritten += self._spec.task == "sft" and len(cut.sequences) > 1
        for name in self._specs:  # which differ in what becomes of overlong rows
            if name == "truncate" or not cut.truncated:
                self._keep(name, cut)
            elif name == "split" and isinstance(split := next(windows), Encoding):
                self._keep(name, split)

    def _keep(self, name: str, encoding: Encoding) -> None:
        self._kept[name][0] += bool(encoding.kept)
        self._kept[name][1] += sum(sequence.trained_tokens for sequence in encoding.kept)

    def to_json(self, model: str, *, default_template: bool) -> Tokens:
        """What the report says of tokens, with what was measured so far."""
        lengths = np.frombuffer(self._longest, dtype=np.int64) if self._longest else np.zeros(1, np.int64)
        p50, p95, longest = (int(np.quantile(lengths, share, method="inverted_cdf")) for share in (0.5, 0.95, 1.0))
        return {
            "model": model,
            "max_length": self._spec.max_length,
            "task": self._spec.task,
            "rows": len(self._longest),
            "p50": p50,
            "p95": p95,
            "max": longest,
            "total": self._total,
            "truncated": self._truncated,
            "answer_lost": self._answer_lost,
            "rewritten": self._rewritten,
            "refused": self._refused,
            "default_template": default_template,
            "histogram": make_histogram(lengths[: len(self._longest)], self._spec.max_length),
            "choices": [self._choice(name) for name in self._specs],
        }

    def _choice(self, name: str) -> Choice:
        rows, trained_tokens = self._kept[name]
        return {"overlong_rows": name, "rows": rows, "trained_tokens": trained_tokens}


def answer_lost(encoding: Encoding) -> bool:
    """Whether a sequence of the row (of a pair: either answer) was cut before anything that is learned."""
    return any(sequence.truncated and not sequence.trained_tokens for sequence in encoding.sequences)


def make_histogram(lengths: Any, max_length: int) -> Histogram:
    """Bars of equal, round width for an array of lengths; max_length lies among them unless it is far beyond all."""
    if not len(lengths):
        return {"width": 1, "counts": [], "over": 0}
    usual = int(np.quantile(lengths, _SHARE_IN_BARS, method="inverted_cdf"))
    end = max(usual, max_length if max_length <= 2 * int(lengths.max()) else 0) + 1
    width = _round_up(end / BARS)
    bars = math.ceil(end / width)
    counts = np.bincount(np.minimum(lengths // width, bars), minlength=bars + 1).tolist()
    return {"width": width, "counts": counts[:bars], "over": counts[bars]}


def _round_up(value: float) -> int:
    """To 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, math.floor(math.log10(max(value, 1))))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= value))
