"""One device as NVML reports it: each value read once, an unreadable one None and never 0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

import pynvml

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

# The device or the session itself is gone; any other error costs one value alone.
_LOSSES = (
    pynvml.NVMLError_Uninitialized,
    pynvml.NVMLError_DriverNotLoaded,
    pynvml.NVMLError_GpuIsLost,
    pynvml.NVMLError_GpuNotFound,
    pynvml.NVMLError_ResetRequired,
    pynvml.NVMLError_LibRmVersionMismatch,
)

_EXPLANATIONS: dict[int, str] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "NVML (libnvidia-ml.so.1) was not found: no NVIDIA driver is installed, or the container was given no GPU."
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "The NVIDIA driver is not loaded. Run `nvidia-smi`; if it fails too, reboot.",
    pynvml.NVML_ERROR_UNINITIALIZED: "NVML lost its session with the driver; it is opened again.",
    pynvml.NVML_ERROR_GPU_IS_LOST: "The GPU is lost to the driver. Look for `Xid` in `dmesg`, then reboot.",
    pynvml.NVML_ERROR_RESET_REQUIRED: "The GPU needs a reset. Stop what uses it, then reboot.",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "The NVIDIA driver and its library differ in version, as after an update. Reboot."
    ),
}


def explain(error: pynvml.NVMLError) -> str:
    """The failure in words, with what to do next where that is known."""
    return _EXPLANATIONS.get(error.value, f"NVML failed: {error}.")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """A process that holds a context on the device. Pids are the driver's: in a container they may be the host's."""

    pid: int
    process_vram_bytes: int | None
    name: str | None
    is_child: bool


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One look at one device. What cannot be read is None, never 0."""

    index: int
    name: str | None
    uuid: str | None
    vram_total_bytes: int | None
    vram_used_bytes: int | None  # the whole device, without what the driver reserves for itself
    utilization_percent: int | None
    temperature_celsius: int | None
    power_watts: float | None
    power_limit_watts: float | None
    processes: tuple[ProcessReading, ...] | None
    process_vram_bytes: int | None  # the child and its descendants; None also while the driver does not list them


@dataclass(slots=True)
class Device:
    """A device that NVML counts, attached or not."""

    index: int
    handle: Any = None
    name: str | None = None
    uuid: str | None = None
    loss_code: int | None = None
    told: set[tuple[int, str, str]] = field(default_factory=set)

    @classmethod
    def attach(cls, index: int, told: set[tuple[int, str, str]]) -> Device:
        """Find the device's handle and identity. One that fails is kept, and each read of it raises why.

        `told` outlives the device: what has been logged already.
        """
        device = cls(index, told=told)
        try:
            device.handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            device.name = device._value("name", lambda: pynvml.nvmlDeviceGetName(device.handle))
            device.uuid = device._value("uuid", lambda: pynvml.nvmlDeviceGetUUID(device.handle))
        except pynvml.NVMLError as error:
            device.loss_code = error.value
        return device

    def read(self, child_pids: frozenset[int]) -> DeviceReading:
        """Raises: pynvml.NVMLError where the device or the session is gone."""
        if self.loss_code is not None:
            raise pynvml.NVMLError(self.loss_code)
        memory = self._value("memory", self._memory)
        utilization = self._value("utilization", lambda: pynvml.nvmlDeviceGetUtilizationRates(self.handle))
        processes = self._processes(child_pids)
        return DeviceReading(
            index=self.index,
            name=self.name,
            uuid=self.uuid,
            vram_total_bytes=memory and memory.total,
            vram_used_bytes=memory and memory.used,
            utilization_percent=utilization and utilization.gpu,
            temperature_celsius=self._value("temperature", self._temperature),
            power_watts=_watts(self._value("power", lambda: pynvml.nvmlDeviceGetPowerUsage(self.handle))),
            power_limit_watts=_watts(
                self._value("power limit", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(self.handle))
            ),
            processes=processes,
            process_vram_bytes=_total(p.process_vram_bytes for p in processes or () if p.is_child),
        )

    def unreadable(self) -> DeviceReading:
        """The reading of a lost device: who it is, and nothing else."""
        return DeviceReading(self.index, self.name, self.uuid, *[None] * 8)

    def _value(self, what: str, read: Callable[[], Value]) -> Value | None:
        """One value, or None. Raises: pynvml.NVMLError where the device or the session is gone."""
        try:
            return read()
        except _LOSSES:
            raise
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError) as error:
            self._tell_once(what, str(error))
            return None

    def _tell_once(self, what: str, why: str) -> None:
        if (self.index, what, why) not in self.told:
            self.told.add((self.index, what, why))
            logger.info("GPU %s gives no %s: %s", self.index, what, why, extra={"action": "sample_gpu"})

    def _memory(self) -> Any:
        """Total and used bytes. Drivers before 510 have only the first version, whose `used` includes the reserve."""
        try:
            return pynvml.nvmlDeviceGetMemoryInfo(self.handle, pynvml.nvmlMemory_v2)
        except pynvml.NVMLError_FunctionNotFound:
            return pynvml.nvmlDeviceGetMemoryInfo(self.handle)

    def _temperature(self) -> int:
        """The core's degrees Celsius; the older call goes away with CUDA 14 and older drivers have no other."""
        try:
            return int(pynvml.nvmlDeviceGetTemperatureV(self.handle, pynvml.NVML_TEMPERATURE_GPU))
        except pynvml.NVMLError_FunctionNotFound:
            return int(pynvml.nvmlDeviceGetTemperature(self.handle, pynvml.NVML_TEMPERATURE_GPU))

    def _processes(self, child_pids: frozenset[int]) -> tuple[ProcessReading, ...] | None:
        """Compute and graphics processes, each pid once; None where neither list can be read."""
        compute = self._value("compute processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self.handle))
        graphics = self._value("graphics processes", lambda: pynvml.nvmlDeviceGetGraphicsRunningProcesses(self.handle))
        if compute is None and graphics is None:
            return None
        # A process in both lists is reported with the same memory twice; one on several MIG instances holds several.
        entries = {(p.pid, p.gpuInstanceId, p.computeInstanceId): p for p in [*(graphics or ()), *(compute or ())]}
        used: dict[int, list[int | None]] = {}
        for entry in entries.values():
            used.setdefault(entry.pid, []).append(entry.usedGpuMemory)
        return tuple(
            ProcessReading(pid, _total(used[pid]), self._process_name(pid), pid in child_pids) for pid in sorted(used)
        )

    def _process_name(self, pid: int) -> str | None:
        name = self._value("process name", lambda: pynvml.nvmlSystemGetProcessName(pid))
        return PurePath(name).name if name else None


def _total(values: Iterable[int | None]) -> int | None:
    """The sum, or None where there is nothing or a part is unknown: a sum without it would read too low."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if found and len(known) == len(found) else None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000
