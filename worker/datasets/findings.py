"""What is wrong with rows: each problem by its kind, the first of each named, all counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.report import NAMED_PROBLEMS, Problem, ProblemKind, stops_training

MAX_MESSAGE = 400  # characters

# How the messages of `RowFault` begin, or what they hold, and what kind of problem that is; the first that fits counts.
_KINDS: tuple[tuple[str, ProblemKind], ...] = (
    ("has no answer", ProblemKind.EMPTY_ANSWER),
    ("is missing", ProblemKind.MISSING_FIELD),
    ("is empty", ProblemKind.EMPTY_FIELD),
    ("; known roles: ", ProblemKind.ROLE),
    ("is an answer that no user message precedes", ProblemKind.TURN_ORDER),
    ("has the role ", ProblemKind.TURN_ORDER),
    ("ends with the role ", ProblemKind.TURN_ORDER),
    ("does not end with an answer", ProblemKind.TURN_ORDER),
    ("is the same as chosen", ProblemKind.SAME_ANSWERS),
    ("does not begin with the turns", ProblemKind.PROMPT_MISMATCH),
    ("is not among the turns", ProblemKind.PROMPT_MISMATCH),
    ("one file holds one format", ProblemKind.FORMAT),
    ("holds a lone surrogate", ProblemKind.SURROGATE),
    ("holds a number that is too large", ProblemKind.NOT_FINITE),
    ("NaN", ProblemKind.NOT_FINITE),
    ("Infinity", ProblemKind.NOT_FINITE),
)


def kind_of(fault: RowFault) -> ProblemKind:
    """What kind of problem a fault is."""
    found = next((kind for words, kind in _KINDS if words in fault.message), None)
    return found or (ProblemKind.WRONG_TYPE if fault.field else ProblemKind.UNREADABLE)


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

    def add_fault(self, row: int, fault: RowFault, read: Mapping[str, Any] | None = None) -> None:
        """A row that cannot be used; `read` are its fields where they could be read."""
        gone = read is not None and fault.field.isidentifier() and read.get(fault.field) is None
        kind, message = (ProblemKind.MISSING_FIELD, "is missing") if gone else (kind_of(fault), fault.message)
        self.add(row, fault.field, kind, message)

    def to_json(self) -> dict[str, Any]:
        """{problems, counts, unusable}, as the report has them."""
        return {"problems": list(self.named), "counts": dict(self.counts), "unusable": self.unusable}
