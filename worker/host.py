"""Readings of the host: memory, processor, disk, and the child's resident memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_SHORTEST_CPU_INTERVAL_SECONDS = 0.1  # Source: psutil's documentation of cpu_percent


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the host. What cannot be read is None, never 0."""

    ram_total_bytes: int
    ram_used_bytes: int  # total - available: what no new process could have
    child_rss_bytes: int | None  # the child and its descendants; pages that they share count for each
    cpu_percent: float | None  # all cores together, since the sample before
    disk_total_bytes: int | None  # of the file system that holds the data folder
    disk_free_bytes: int | None  # what is left to this user


class HostSampler:
    """Reads the host through psutil. `sample` belongs to one thread."""

    def __init__(self, data_folder: Path) -> None:
        self._data_folder = data_folder
        self._cpu_read_at: float | None = None

    def sample(self, family: tuple[psutil.Process, ...]) -> HostReading:
        """`family` is the child and its descendants, empty where no job runs."""
        memory = psutil.virtual_memory()
        disk_total_bytes, disk_free_bytes = self._disk_bytes()
        return HostReading(
            ram_total_bytes=memory.total,
            ram_used_bytes=memory.total - memory.available,
            child_rss_bytes=_family_rss_bytes(family),
            cpu_percent=self._cpu_percent(),
            disk_total_bytes=disk_total_bytes,
            disk_free_bytes=disk_free_bytes,
        )

    def _cpu_percent(self) -> float | None:
        """None at first: psutil's first call in a thread has nothing to compare with, and answers 0."""
        now, before = time.monotonic(), self._cpu_read_at
        if before is not None and now - before < _SHORTEST_CPU_INTERVAL_SECONDS:
            return None
        self._cpu_read_at = now
        percent = psutil.cpu_percent()
        return None if before is None else percent

    def _disk_bytes(self) -> tuple[int | None, int | None]:
        try:
            usage = psutil.disk_usage(str(self._data_folder))
        except OSError:  # the folder is not there yet, or its mount is gone
            return None, None
        return usage.total, usage.free


def find_family(child_pid: int | None) -> tuple[psutil.Process, ...]:
    """The child and its descendants that live now; empty where there is no child or it has ended."""
    if child_pid is None:
        return ()
    try:
        child = psutil.Process(child_pid)
        return (child, *child.children(recursive=True))
    except psutil.Error:  # ended between two looks, or not ours to look at
        return ()


def _family_rss_bytes(family: tuple[psutil.Process, ...]) -> int | None:
    readings = [rss for process in family if (rss := _rss_bytes(process)) is not None]
    return sum(readings) if readings else None


def _rss_bytes(process: psutil.Process) -> int | None:
    try:
        return int(process.memory_info().rss) or None  # one that has ended and waits to be reaped holds nothing
    except psutil.Error:  # ended between two looks, or not ours to look at
        return None
