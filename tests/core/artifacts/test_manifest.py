"""A manifest is believed only as it was written, and files only as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.artifacts.manifest import file_fault, folder_fault, hash_file, seal


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with one file and its manifest."""
    (tmp_path / "weights").write_bytes(b"\1\2\3\4")
    file = {"path": "weights", "bytes": 4, "sha256": hash_file(tmp_path / "weights")}
    (tmp_path / "meta.json").write_text(seal({"step": 20, "files": [file]}), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["weights", "meta.json"])
def test_any_flipped_bit_and_any_cut_is_found(finished: Path, name: str) -> None:
    assert folder_fault(finished) is None
    content = (finished / name).read_bytes()
    for place in range(len(content)):
        flipped = bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]])
        for damaged in (flipped, content[:place]):
            (finished / name).write_bytes(damaged)
            assert folder_fault(finished) is not None, (place, damaged)


@pytest.mark.parametrize(("name", "said"), [("weights", "weights is missing"), ("meta.json", "not complete")])
def test_a_missing_file_is_named(finished: Path, name: str, said: str) -> None:
    (finished / name).unlink()
    assert said in str(folder_fault(finished))


def test_without_hashes_a_file_is_judged_by_its_size(finished: Path) -> None:
    listed = {"path": "weights", "bytes": 4, "sha256": "another"}
    assert file_fault(finished, listed, hashes=False) is None
    assert "damaged" in str(file_fault(finished, listed))
    assert "4 bytes instead of 5" in str(file_fault(finished, {**listed, "bytes": 5}, hashes=False))
