"""What is wrong with one row of a data file."""

from __future__ import annotations

from typing import Any

from app.core.datasets.report import ProblemKind
from app.core.errors import Fault

Row = dict[str, Any]  # of a data file: its fields


class RowFault(Exception):
    """A row cannot be used: which field, why, and what kind of problem that is."""

    def __init__(self, field: str, message: str, kind: ProblemKind) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.kind = kind

    def at(self, row: int | str) -> Fault:
        """The fault with its row's number among the file's rows, from 1; of several files also the file's name."""
        return Fault("file", f"row {row}: {self.field}: {self.message}" if self.field else f"row {row}: {self.message}")
