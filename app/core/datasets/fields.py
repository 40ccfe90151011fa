"""Fields of a row that are plain texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.core.datasets.faults import RowFault
from app.core.datasets.report import ProblemKind


def text_field(row: Mapping[str, Any], field: str, *, required: bool = True) -> str:
    """Raises: RowFault where it is no text, or is required and empty."""
    value = row.get(field)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        if value is None:
            raise RowFault(field, "is missing", ProblemKind.MISSING_FIELD)
        raise RowFault(field, f"is not a text but {type(value).__name__}", ProblemKind.WRONG_TYPE)
    if required and not value.strip():
        raise RowFault(field, "is empty", ProblemKind.EMPTY_FIELD)
    return value


def answer_field(row: Mapping[str, Any], field: str) -> str:
    """A text to learn. Raises: RowFault."""
    value = row.get(field)
    if value is None:
        raise RowFault(field, "has no answer: it is missing", ProblemKind.MISSING_FIELD)
    if isinstance(value, str) and not value.strip():
        raise RowFault(field, "has no answer: it is empty", ProblemKind.EMPTY_ANSWER)
    return text_field(row, field)


def question(row: Mapping[str, Any], context_field: str) -> str:
    """`instruction`, and what it is about in a paragraph of its own. Raises: RowFault."""
    instruction = text_field(row, "instruction")
    context = text_field(row, context_field, required=False)
    return f"{instruction}\n\n{context}" if context.strip() else instruction
