"""What is wrong with rows: each problem by its kind, the first of each named, all counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.report import NAMED_PROBLEMS, Problem, ProblemKind, stops_training

MAX_MESSAGE = 400  # characters


class Findings:
    """Gathers problems. A row may have several."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.unusable = 0
        self.named: list[Problem] = []
        self._last_unusable: int | None = None

    def add(self, row: int | None, field: str, kind: ProblemKind, message: str) -> None:
        """One problem. Rows come in their order."""
        self.counts[kind.value] += 1
        if stops_training(kind) and row is not None and row != self._last_unusable:
            self.unusable += 1
            self._last_unusable = row
        if self.counts[kind.value] <= NAMED_PROBLEMS:
            short = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
            self.named.append({"row": row, "field": field, "kind": kind.value, "message": short})

    def add_fault(self, row: int, fault: RowFault) -> None:
        """A row that cannot be used."""
        self.add(row, fault.field, fault.kind, fault.message)

    def to_json(self) -> dict[str, Any]:
        """{problems, counts, unusable}, as the report has them."""
        return {"problems": list(self.named), "counts": dict(self.counts), "unusable": self.unusable}
