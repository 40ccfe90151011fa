"""Which lines of a log are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core.paths import DataFolder
from app.jobs import log_lines
from app.jobs.log_lines import SHOWN_LINES, Asked, read_lines
from tests.jobs.steps import MakeJob


def _write(path: Path, count: int) -> Path:
    lines = [f"2026-01-01 00:00:00,000 {'ERROR' if n % 1000 == 0 else 'INFO'} worker: step {n}" for n in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_shows_the_last_lines_and_then_those_before_without_a_gap(tmp_path: Path) -> None:
    path = _write(tmp_path / "train.log", 20_000)
    seen: list[str] = []
    asked: Asked | None = Asked()
    while asked is not None:
        shown = read_lines(path, asked)
        assert 0 < len(shown.lines) <= SHOWN_LINES
        seen = [*shown.lines, *seen]
        asked = Asked(before=shown.older) if shown.older is not None else None
    assert seen == path.read_text().splitlines()


def test_finds_text_in_any_case_and_levels_from_the_whole_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "train.log", 20_000)
    assert len(read_lines(path, Asked(level="ERROR")).lines) == 20
    found = read_lines(path, Asked(search="STEP 1999"))
    assert found.lines[0].endswith("step 1999")
    assert len(found.lines) == 11
    assert found.older is None


def test_a_traceback_has_the_level_of_the_line_before_it(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("2026-01-01 0 ERROR x: broke\nTraceback\n  File y\n2026-01-01 0 INFO x: fine\nplain\n")
    assert read_lines(path, Asked(level="WARNING")).lines == ["2026-01-01 0 ERROR x: broke", "Traceback", "  File y"]


def test_a_log_that_is_too_long_to_search_says_how_much_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "train.log", 2000)
    monkeypatch.setattr(log_lines, "SEARCHED_BYTES", 1000)
    shown = read_lines(path, Asked(search="step"))
    assert shown.unread == path.stat().st_size - 1000
    assert shown.lines[-1].endswith("step 1999")
    assert shown.older == shown.unread


def test_a_log_that_is_not_there_or_no_text_breaks_nothing(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.log", Asked()).lines == []
    (tmp_path / "odd.log").write_bytes(b"\xff\xfe\x00 no line end")
    assert len(read_lines(tmp_path / "odd.log", Asked(search="NO LINE")).lines) == 1
    assert read_lines(tmp_path / "odd.log", Asked(before=0)).lines == []


def test_the_page_filters_and_keeps_the_filter_in_its_addresses(
    client: TestClient, folder: DataFolder, make_job: MakeJob
) -> None:
    make_job("a")
    folder.job(1).mkdir(parents=True)
    _write(folder.job(1) / "train.log", 3000)
    page = client.get("/jobs/1/logs?q=step 2&level=INFO").text
    assert "step 2999" in page
    assert "step 1999" not in page
    assert "q=step%202&amp;level=INFO&amp;before=" in page
    assert "&lt;b&gt;" in client.get("/jobs/1/logs?q=<b>&level=nonsense").text
    assert client.get("/jobs/1/logs?before=-1").status_code == 422
