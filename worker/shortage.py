"""Recognise that memory ran out, and whose, the device's or the host's. Torch's errors are known by their names."""

from __future__ import annotations

import errno
import os
import re
from enum import StrEnum
from pathlib import Path

from app.core.errors import HostOutOfMemory, JobError, OutOfMemory

OOM_ADVICE = "Queue it again with a change: its page and `loradeck jobs autopsy` rank them, with their predicted peaks."
_SENTENCES = 3  # of torch's: that it is out of memory, what it asked for, and what the device had left
_ORIGIN = re.compile(r"^\[enforce fail at [^]]*\] [^.]*\. ")  # a place in torch's source, and the condition there
_DEVICE_TEXTS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_HOST_TEXTS = ("DefaultCPUAllocator", "std::bad_alloc")
_OWN_CGROUP, _CGROUPS, _VMSTAT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/vmstat")


class Shortage(StrEnum):
    """Which memory ran out."""

    DEVICE = "device"
    HOST = "host"


def find_shortage(error: BaseException | None) -> Shortage | None:
    """Which memory the error says ran out, or the one that it was raised from; None for any other error."""
    while error is not None:
        found = _of(error)
        if found is not None:
            return found
        error = error.__cause__
    return None


def describe_shortage(shortage: Shortage, error: BaseException) -> JobError:
    """The error by our name, with what the library's first sentences say."""
    kind = OutOfMemory if shortage is Shortage.DEVICE else HostOutOfMemory
    text = _ORIGIN.sub("", " ".join(str(error).split()))
    sentences = [sentence.rstrip(".") for sentence in text.split(". ")[:_SENTENCES] if sentence]
    return kind(f"{'. '.join(sentences)}." if sentences else None, advice=OOM_ADVICE)


def _of(error: BaseException) -> Shortage | None:
    text = str(error)
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):  # torch's
        return Shortage.DEVICE
    if isinstance(error, RuntimeError) and any(each in text for each in _DEVICE_TEXTS):
        return Shortage.DEVICE
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return Shortage.HOST
    return Shortage.HOST if isinstance(error, RuntimeError) and any(each in text for each in _HOST_TEXTS) else None


def count_oom_kills() -> int | None:
    """Processes that the kernel has killed for want of memory: of this process's cgroup, else of the whole machine.

    None where neither tells. Source: the kernel's admin-guide/cgroup-v2 (memory.events) and proc(5) (vmstat).
    """
    for path in (*_memory_events(), _VMSTAT):
        if path.is_file():
            for line in path.read_text(encoding="ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return None


def _memory_events() -> list[Path]:
    """The file of this process's cgroup v2; a container sees its own cgroup as the root."""
    lines = _OWN_CGROUP.read_text(encoding="utf-8").splitlines() if _OWN_CGROUP.is_file() else []
    own = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    return [Path(os.path.normpath(f"{_CGROUPS}/{path}")) / "memory.events" for path in own]
