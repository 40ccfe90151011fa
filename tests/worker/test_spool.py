"""The spool's lines survive whatever kills their writer."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from worker.notes import FILE as NOTE
from worker.notes import read_wait
from worker.spool import SpoolDamaged, SpoolWriter, open_when_it_fits, read_spool


def test_records_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    writer = SpoolWriter(path)
    writer.phase("train")
    writer.metrics(1, {"loss": 2.5, "grad_norm": float("inf")})
    writer.progress(1, 10, eta_seconds=9.0)
    records = [record for record, _offset in read_spool(path)]
    assert [(r.seq, r.kind, r.step, r.data) for r in records] == [
        (1, "phase", None, {"phase": "train"}),
        (2, "metric", 1, {"loss": 2.5, "grad_norm": None}),
        (3, "progress", 1, {"max_steps": 10, "eta_seconds": 9.0}),
    ]


def test_reading_goes_on_behind_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    writer = SpoolWriter(path)
    for step in range(5):
        writer.metrics(step, {"loss": 1.0})
    first, offset = list(read_spool(path))[1]
    rest = [record.seq for record, _ in read_spool(path, offset, first.seq)]
    assert rest == [3, 4, 5]


def test_a_full_disk_is_waited_for_and_costs_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a part of the line, then nothing for a while; the note says so, and needs no room for that."""
    path = tmp_path / "spool.jsonl"
    writer, write, notes = SpoolWriter(path), os.write, []
    room = iter([10, 0, 0])

    def write_into_little_room(descriptor: int, line: bytes) -> int:
        left = next(room, len(line))
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, line[:left])

    monkeypatch.setattr("worker.spool.os.write", write_into_little_room)
    monkeypatch.setattr("worker.spool.time.sleep", lambda _: notes.append(read_wait(tmp_path)))
    size = (tmp_path / NOTE).stat().st_blocks
    writer.metrics(1, {"loss": 1.0})
    writer.phase("save")
    assert [(record.seq, record.kind) for record, _ in read_spool(path)] == [(1, "metric"), (2, "phase")]
    assert [note["kind"] for note in notes if note] == ["disk_full", "disk_full"]
    assert read_wait(tmp_path) is None
    assert (tmp_path / NOTE).stat().st_blocks == size


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_line_torn_at_any_place_is_as_good_as_not_written(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "spool.jsonl"
    SpoolWriter(path).phase("load")
    whole = path.stat().st_size
    SpoolWriter(path).phase("train")
    os.truncate(path, whole + kept)
    assert [record.seq for record, _ in read_spool(path)] == [1]


def test_a_record_of_another_version_is_damage_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    SpoolWriter(path).write("hologram", {})  # type: ignore[arg-type]
    with pytest.raises(SpoolDamaged, match="unknown kind: hologram"):
        list(read_spool(path))


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    SpoolWriter(path).phase("load")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert len(list(read_spool(path))) == 1


@pytest.mark.parametrize("position", [0, 9, -3])
def test_flipped_byte_is_damage_and_not_a_value(tmp_path: Path, position: int) -> None:
    path = tmp_path / "spool.jsonl"
    writer = SpoolWriter(path)
    writer.phase("load")
    good = path.stat().st_size
    writer.metrics(1, {"loss": 1.0})
    content = bytearray(path.read_bytes())
    content[position if position < 0 else good + position] ^= 0x04
    path.write_bytes(bytes(content))
    reader = read_spool(path)
    assert next(reader)[0].seq == 1
    with pytest.raises(SpoolDamaged):
        next(reader)


def test_missing_record_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    writer = SpoolWriter(path)
    for phase in ("load", "tokenize", "train"):
        writer.phase(phase)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(SpoolDamaged, match="record 3 where 2"):
        list(read_spool(path))


def test_threads_share_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    writer = SpoolWriter(path)
    threads = [threading.Thread(target=lambda: [writer.metrics(1, {"x": 1.0}) for _ in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.seq for record, _ in read_spool(path)] == list(range(1, 401))


def test_spool_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert list(read_spool(tmp_path / "none.jsonl")) == []


def test_a_disk_that_is_full_as_a_process_begins_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    pwrite = os.pwrite

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_room(seconds: float) -> None:
        waited.append(seconds)
        monkeypatch.setattr("os.pwrite", pwrite)

    monkeypatch.setattr("os.pwrite", fail)
    monkeypatch.setattr("time.sleep", make_room)
    open_when_it_fits(tmp_path / "spool.jsonl").phase("train")
    assert len(waited) == 1
    assert [record.kind for record, _ in read_spool(tmp_path / "spool.jsonl")] == ["phase"]
