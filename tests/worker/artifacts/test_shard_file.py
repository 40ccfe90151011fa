"""A safetensors file written in pieces: what lies in it, however its disk takes writes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from worker.artifacts import shard_file
from worker.artifacts.blocks import Scratch
from worker.artifacts.shard_file import PAGE, ShardFile

SHAPES = {"odd": (37, 3), "pages": (64, 2048), "scalar": (), "wide": (3, 5000), "empty": (0, 4)}
DTYPES = {"wide": torch.float32}


def make_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape).to(DTYPES.get(name, torch.bfloat16)) for name, shape in SHAPES.items()}


def write_in_pieces(path: Path, tensors: dict[str, torch.Tensor], piece: int) -> None:
    """So many bytes at a time, out of order, as threads would."""
    scratch = Scratch()
    with ShardFile(path, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}) as file:
        for name, tensor in tensors.items():
            raw = tensor.reshape(-1).view(torch.uint8)
            for begin in reversed(range(0, len(raw), piece)):
                part, place = raw[begin : begin + piece], file.place(name, begin)
                file.write(place, scratch.to_write(len(part), place).copy_(part))


def require_written(path: Path, piece: int) -> None:
    tensors = make_tensors()
    write_in_pieces(path, tensors, piece)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("piece", [100, PAGE, 10_000, 2**20])
def test_pieces_of_any_size_come_together(piece: int, tmp_path: Path) -> None:
    require_written(tmp_path / "model.safetensors", piece)


def test_a_disk_without_direct_writes_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> None:
        return None

    monkeypatch.setattr(shard_file, "_open_direct", refuse)
    require_written(tmp_path / "model.safetensors", 10_000)


class Writes:
    """What is written directly, and what through the cache: (place, bytes)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: OSError | None = None) -> None:
        self.direct: list[tuple[int, int]] = []
        self.cached: list[tuple[int, int]] = []
        pwrite = os.pwrite

        def note(descriptor: int, content: memoryview, place: int) -> int:
            direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
            if direct and refused is not None:
                raise refused
            (self.direct if direct else self.cached).append((place, len(content)))
            return pwrite(descriptor, content, place)

        monkeypatch.setattr(os, "pwrite", note)


def test_whole_pages_go_straight_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Writes(monkeypatch)
    require_written(tmp_path / "model.safetensors", 10_000)
    if not writes.direct:
        pytest.skip("the temporary folder's file system has no direct writes")
    assert all(place % PAGE == size % PAGE == 0 for place, size in writes.direct)
    assert sum(size for _, size in writes.direct) > 64 * 2048
    assert all(size < PAGE for _, size in writes.cached[1:]), "all but the header are the ends of pieces"


def test_direct_writes_that_are_refused_only_when_made_go_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = Writes(monkeypatch, OSError(errno.EINVAL, "Invalid argument"))
    require_written(tmp_path / "model.safetensors", 10_000)
    assert not writes.direct


def test_a_write_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    opened = len(os.listdir("/proc/self/fd"))
    file = ShardFile(tmp_path / "model.safetensors", {"pages": (torch.bfloat16, SHAPES["pages"])})
    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="Input/output error"), file:
        file.write(file.place("pages"), make_tensors()["pages"].reshape(-1).view(torch.uint8))
    assert len(os.listdir("/proc/self/fd")) == opened, "no file stays open"


def test_a_disk_without_room_says_so_before_anything_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left"):
        ShardFile(tmp_path / "model.safetensors", {"pages": (torch.bfloat16, SHAPES["pages"])})
    assert len(os.listdir("/proc/self/fd")) == opened, "no file stays open"
