"""A disk that fills up at any write of a short training costs nothing; `python -m chaos.no_space` tries every one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from chaos.full_disk import FillingDisk
from chaos.no_space import sweep

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_disk_that_fills_up_at_any_write_costs_nothing(tmp_path: Path) -> None:
    result = sweep(tmp_path, at=6)
    assert result["broken"] == []
    assert result["writes"] > 50
    assert result["tried"] == 6
    assert result["filled"] >= 5, "a run may come to its end one write earlier"
    assert result["waited"] > 2
    assert result["attempts"] > 6, "of those whose worker stopped meanwhile"


def test_the_disk_takes_half_of_the_write_that_fills_it_and_then_nothing_until_there_is_room(tmp_path: Path) -> None:
    disk, file = FillingDisk(tmp_path, full_at=2), tmp_path / "file"
    with disk.mounted():
        with file.open("wb", buffering=0) as out:
            assert (out.write(b"12345678"), out.write(b"12345678")) == (8, 4)
            with pytest.raises(OSError, match="No space left"):
                out.write(b"1")
            disk.make_room()
            assert out.write(b"1") == 1
        assert (tmp_path.parent / "elsewhere").write_text("not counted") == 11
    assert (file.stat().st_size, disk.writes) == (13, 4)


def test_what_torch_and_descriptors_write_is_counted_too(tmp_path: Path) -> None:
    disk = FillingDisk(tmp_path, full_at=1)
    with disk.mounted(), pytest.raises(OSError, match="No space left"):
        torch.save({"weights": torch.zeros(9)}, tmp_path / "state.pt")
    disk.make_room()
    descriptor = os.open(tmp_path / "spool", os.O_WRONLY | os.O_CREAT)
    with disk.mounted():
        before = disk.writes
        os.write(descriptor, b"line")
        os.pwrite(descriptor, b"over", 0)  # in its place: that needs no room
    os.close(descriptor)
    assert disk.writes == before + 1
