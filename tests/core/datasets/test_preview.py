"""What is shown of a dataset's rows: found without reading those before, no more than a page holds."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from app.core.datasets import beside, preview, reader
from app.core.datasets.beside import CAME, PLACES
from app.core.datasets.models import Dataset
from app.core.datasets.normalise import ROWS
from app.core.datasets.preview import preview_raw, preview_rows
from app.core.paths import DataFolder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for each third row, and five rows as they came."""
    monkeypatch.setattr(beside, "PLACED_ROWS", 3)
    monkeypatch.setattr(beside, "CAME_ROWS", 5)
    monkeypatch.setattr(preview, "CAME_ROWS", 5)


def _texts(*texts: str) -> str:
    return "".join(json.dumps({"text": text, "more": len(text)}) + "\n" for text in texts)


@pytest.mark.usefixtures("few")
def test_every_row_is_found_from_its_place_and_without_places(add: Callable[..., Dataset], folder: DataFolder) -> None:
    texts = ["a" * n for n in range(1, 11)]
    dataset = add(_texts(*texts))
    for kept in (True, False):
        for first in range(1, 13):
            assert preview_rows(folder, dataset, first, 3) == [{"text": text} for text in texts[first - 1 : first + 2]]
        if kept:
            (folder.dataset(dataset.key) / PLACES).unlink()


@pytest.mark.usefixtures("few")
def test_the_first_rows_are_kept_as_they_came_and_the_source_is_not_read_again(
    add: Callable[..., Dataset], folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = add(_texts(*"abcdefg"))
    monkeypatch.delattr(reader, "read_rows")
    (folder.dataset(dataset.key) / "source.jsonl").unlink()
    assert preview_raw(folder, dataset, 4, 3) == [{"text": "d", "more": 1}, {"text": "e", "more": 1}, None]
    (folder.dataset(dataset.key) / CAME).unlink()
    assert preview_raw(folder, dataset, 1, 2) == [None, None]


def test_rows_too_long_for_a_page_are_passed_over(
    add: Callable[..., Dataset], folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (beside, preview):
        monkeypatch.setattr(module, "ROW_BYTES", 100)
    monkeypatch.setattr(preview, "_PIECE_BYTES", 7)
    monkeypatch.setattr(preview, "_SHOWN_BYTES", 150)
    dataset = add(_texts("a", "b" * 500, "c" * 60, "d" * 60, "e"))
    assert [row["text"][0] if row else None for row in preview_rows(folder, dataset)] == ["a", None, "c", None, "e"]
    assert [row["text"][0] if row else None for row in preview_raw(folder, dataset)] == ["a", None, "c", "d", "e"]


def test_a_last_row_without_its_line_break_and_a_missing_one_are_no_fault(
    add: Callable[..., Dataset], folder: DataFolder
) -> None:
    dataset = add(_texts("a", "b", "c"))
    path = folder.dataset(dataset.key) / ROWS
    path.write_text('{"text": "a"}\n{"text": "b"}')
    assert preview_rows(folder, dataset) == [{"text": "a"}, {"text": "b"}]
