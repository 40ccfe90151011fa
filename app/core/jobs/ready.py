"""Refuse what is asked of a dataset or a model that is not there yet, and say what to do."""

from __future__ import annotations

from app.core.datasets.models import Dataset, DatasetStatus
from app.core.errors import Conflict
from app.core.models.models import BaseModel

_ERROR_CHARACTERS = 300  # of why an import failed


def require_ready(thing: Dataset | BaseModel) -> None:
    """Raises: Conflict while it is being imported, or where that failed."""
    if thing.status == DatasetStatus.IMPORTING:
        raise Conflict(f"{thing.name} is not ready (importing).", advice="Ask again once its import is done.")
    if thing.status == DatasetStatus.FAILED:
        why = f": {thing.error[:_ERROR_CHARACTERS]}" if thing.error else "."
        raise Conflict(f"{thing.name} is not ready (failed){why}", advice=_advice(thing))


def _advice(thing: Dataset | BaseModel) -> str:
    if isinstance(thing, Dataset) and thing.source.get("kind") == "file":
        return (
            "None of its rows were taken over. Check the file itself, `loradeck datasets check FILE`, which tells all "
            "that is wrong with it; then mend it and add it under the same name, or map its columns on its page."
        )
    return "Import it again on its page."
