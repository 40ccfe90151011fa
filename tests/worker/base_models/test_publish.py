"""Folders appear whole or not at all, and copies share blocks where they can."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from worker.base_models.publish import hash_file, hold_lock, link_or_copy, make_read_only, publish_folder


def _nothing() -> None:
    """Never ask to stop."""


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "models" / "1"
    with publish_folder(target) as folder:
        (folder / "config.json").write_text("{}")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["1"]
    assert (target / "config.json").read_text() == "{}"
    assert target.stat().st_mode & 0o077 == 0


def test_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "1"
    with publish_folder(target) as folder:
        (folder / "old").touch()
    with pytest.raises(FileNotFoundError), publish_folder(target) as folder:
        (folder / "new" / "in a folder that is not there").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_leftovers_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    (tmp_path / ".1.partial").mkdir()
    (tmp_path / ".1.partial" / "half").touch()
    with publish_folder(tmp_path / "1") as folder:
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_new_content_replaces_the_old(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with publish_folder(tmp_path / "1") as folder:
            (folder / content).touch()
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["new"]


def _publish(target: Path, content: str) -> None:
    with publish_folder(target) as folder:
        (folder / content).touch()


def test_the_old_folder_is_whole_until_the_new_one_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "1"
    _publish(target, "old")
    removed: list[str] = []

    def remove(path: Path, ignore_errors: bool = False) -> None:
        if (path / "old").exists():
            removed.append(path.name)
            assert (target / "new").exists(), "the old folder went before the new one came"

    monkeypatch.setattr(shutil, "rmtree", remove)
    _publish(target, "new")
    assert removed == [".1.old"]


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "1"
    _publish(target, "old")
    rename = Path.rename

    def fail_for_the_new(self: Path, to: Path) -> Path:
        if self.name == ".1.partial":
            raise OSError(errno.EIO, "input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="input/output"):
        _publish(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_replacement_that_was_killed_halfway_is_undone_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "1"
    _publish(target, "old")
    target.rename(tmp_path / ".1.old")
    (tmp_path / ".1.partial").mkdir()
    with publish_folder(target) as folder:
        assert [path.name for path in target.iterdir()] == ["old"]
        (folder / "newer").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    (tmp_path / ".1.old").mkdir()  # killed before the last step
    _publish(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert [path.name for path in target.iterdir()] == ["new"]


def _source(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "inner").mkdir(parents=True)
    target.mkdir()
    (source / "weights").write_text("abc")
    (source / "inner" / "file").write_text("def")
    (source / "link").symlink_to("weights")
    return source, target


def test_links_share_blocks_and_follow_symbolic_links(tmp_path: Path) -> None:
    source, target = _source(tmp_path)
    link_or_copy(source, target)
    assert (target / "weights").stat().st_ino == (source / "weights").stat().st_ino
    assert (target / "inner" / "file").read_text() == "def"
    assert not (target / "link").is_symlink()
    assert (target / "link").read_text() == "abc"


def test_files_are_copied_across_filesystems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _source(tmp_path)

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, target)
    assert (target / "weights").read_text() == "abc"
    assert (target / "weights").stat().st_ino != (source / "weights").stat().st_ino


def test_other_link_failures_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _source(tmp_path)

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space left"):
        link_or_copy(source, target)


def test_read_only_files_can_still_be_removed_with_their_folder(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "1") as folder:
        (folder / "weights").touch()
        make_read_only(folder)
    assert (tmp_path / "1" / "weights").stat().st_mode & 0o222 == 0
    with publish_folder(tmp_path / "1"):
        pass
    assert list((tmp_path / "1").iterdir()) == []


def test_lock_is_exclusive_and_waiting_can_be_cancelled(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    lock = tmp_path / "cache" / "model.lock"
    with hold_lock(lock, _nothing), pytest.raises(Stop), hold_lock(lock, stop):
        pytest.fail("the lock was given twice")
    with hold_lock(lock, stop):  # free again
        pass


def test_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # longer than one chunk
    (tmp_path / "file").write_bytes(data)
    assert hash_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()
