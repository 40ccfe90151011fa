"""Changes in folders are told as they happen, those in new folders too."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.watch import Change, TreeWatch


def _changes(watch: TreeWatch) -> set[Change]:
    return {change for _ in range(3) for change in watch.wait(0.05)}


def test_watch_tells_new_names_renames_and_writes(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with TreeWatch([tmp_path / "old"], flat=tmp_path) as watch:
        (tmp_path / "old" / "a").write_text("1")
        (tmp_path / "old" / "a").rename(tmp_path / "old" / "b")
        changes = _changes(watch)
    assert {Change(tmp_path / "old" / name, new=True) for name in "ab"} <= changes
    assert Change(tmp_path / "old" / "a", new=False) in changes


def test_watch_follows_into_folders_that_are_made_while_it_watches(tmp_path: Path) -> None:
    with TreeWatch([], flat=tmp_path) as watch:
        (tmp_path / "1" / "attempts" / "1").mkdir(parents=True)
        made = _changes(watch)
        (tmp_path / "1" / "attempts" / "1" / "spool").write_text("x")
        written = _changes(watch)
    assert Change(tmp_path / "1" / "attempts" / "1", new=True) in made
    assert Change(tmp_path / "1" / "attempts" / "1" / "spool", new=True) in written


def test_watch_leaves_out_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "1" / "below").mkdir(parents=True)
    (tmp_path / "2").mkdir()
    with TreeWatch([tmp_path / "1"], flat=tmp_path) as watch:
        (tmp_path / "2" / "unwatched").touch()
        assert _changes(watch) == set()
        (tmp_path / "1" / "below" / "new").touch()
        assert _changes(watch) == {Change(tmp_path / "1" / "below" / "new", new=True)}


def test_watch_of_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TreeWatch([], flat=tmp_path / "nowhere")
