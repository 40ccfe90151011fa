"""Readings of the GPUs through NVML, and of the host beside them.

`vram_used_bytes` is NVML's figure for a whole device, `process_vram_bytes` NVML's figure for a process. Neither is what
PyTorch's allocator calls allocated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pynvml

from worker.host import HostReading, HostSampler, find_family
from worker.nvml import Device, DeviceReading, explain

logger = logging.getLogger(__name__)

_ABSENT_RETRY_SECONDS = 30.0  # no library, or no device: nothing that mends itself soon
_LONGEST_RETRY_SECONDS = 60.0
_NO_DEVICE = "The NVIDIA driver answers but reports no GPU: none is fitted, or the container was given none."


@dataclass(frozen=True, slots=True)
class Reading:
    """One sample. `available` says that at least one GPU could be read; `reason` says what could not, in words."""

    time: float  # seconds since the epoch, UTC
    available: bool
    reason: str | None
    devices: tuple[DeviceReading, ...]
    host: HostReading

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `loradeck gpu --json` prints them; what cannot be read is null."""
        return asdict(self)


class Sampler:
    """Samples GPUs and host. `sample` belongs to one thread: opening NVML may take a second, a hung driver longer."""

    def __init__(self, data_folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._nvml = _Nvml(clock)
        self._host = HostSampler(data_folder)
        self._reported: str | None = None

    def sample(self, child_pid: int | None) -> Reading:
        """Read each value once. A failure of NVML is in the reading, never raised, and logged when it changes."""
        family = find_family(child_pid)
        readings, lost, reason = self._nvml.read(frozenset(process.pid for process in family))
        self._report(reason)
        return Reading(
            time=time.time(),
            available=lost < len(readings),
            reason=reason,
            devices=readings,
            host=self._host.sample(family),
        )

    def close(self) -> None:
        """Let go of NVML; the next sample would open it again."""
        self._nvml.close()

    def _report(self, reason: str | None) -> None:
        if reason == self._reported:
            return
        self._reported = reason
        if reason is None:
            logger.info("GPU readings are complete again", extra={"action": "sample_gpu"})
        else:
            logger.warning("GPU readings are not complete: %s", reason, extra={"action": "sample_gpu"})


class _Nvml:
    """The session with NVML: opened at need, opened anew with growing pauses while something is wrong."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._devices: list[Device] = []
        self._told: set[tuple[int, str, str]] = set()
        self._closed: str | None = "not opened yet"
        self._complete = False
        self._retry_at = clock()
        self._retries = 0

    def read(self, child_pids: frozenset[int]) -> tuple[tuple[DeviceReading, ...], int, str | None]:
        """Every device's reading, how many of them are lost, and why."""
        if not self._complete and self._clock() >= self._retry_at:
            self._reopen()
        readings, faults = [], []
        for device in self._devices:
            try:
                readings.append(device.read(child_pids))
            except pynvml.NVMLError as error:
                readings.append(device.unreadable())
                faults.append(f"GPU {device.index}: {explain(error)}")
        reason = self._closed or " ".join(faults) or None
        self._complete = reason is None
        if self._complete:
            self._retries = 0
        return tuple(readings), len(faults), reason

    def close(self) -> None:
        self._devices = []
        self._closed = "closed"
        self._complete = False
        self._retry_at = self._clock()
        with suppress(pynvml.NVMLError):  # of a session that is broken or was never open, nothing is left to close
            pynvml.nvmlShutdown()

    def _reopen(self) -> None:
        self.close()
        pause = min(_LONGEST_RETRY_SECONDS, 2.0**self._retries)
        self._retries = min(self._retries + 1, 10)
        try:
            self._devices = self._open()
            self._closed = None if self._devices else _NO_DEVICE
        except pynvml.NVMLError as error:
            self._closed = explain(error)
            if isinstance(error, pynvml.NVMLError_LibraryNotFound):
                pause = _ABSENT_RETRY_SECONDS
        if self._closed == _NO_DEVICE:
            pause = _ABSENT_RETRY_SECONDS
        self._retry_at = self._clock() + pause

    def _open(self) -> list[Device]:
        pynvml.nvmlInit()
        return [Device.attach(index, self._told) for index in range(pynvml.nvmlDeviceGetCount())]
