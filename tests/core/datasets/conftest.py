"""Fixtures that tests of datasets share."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from sqlmodel import Session

from app.core.datasets.models import Dataset
from app.core.datasets.store import Upload
from app.core.paths import DataFolder


@pytest.fixture
def add(session: Session, folder: DataFolder) -> Callable[..., Dataset]:
    """Register content as a dataset."""

    def add(content: str | bytes, filename: str = "rows.jsonl", name: str | None = None, limit: int = 10**6) -> Dataset:
        stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
        with Upload(folder, filename) as upload:
            return upload.register(session, upload.receive(stream, limit).check(), name)

    return add
