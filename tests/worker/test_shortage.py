"""A lack of memory is recognised by whoever reports it, and told from every other error."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from app.core.errors import ModelLoadError
from worker import shortage
from worker.shortage import Shortage, count_oom_kills, describe_shortage, find_shortage

CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. "
    "GPU 0 has a total capacity of 79.25 GiB of which 1.20 GiB is free. "
    "Including non-PyTorch memory, this process has 78.04 GiB memory in use. See documentation for Memory Management"
)


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


class OfALibrary(OutOfMemoryError):
    """One that is derived from torch's."""


def test_the_message_keeps_what_says_how_much_was_missing() -> None:
    error = describe_shortage(Shortage.DEVICE, OutOfMemoryError(CUDA))
    assert (error.code, error.message) == (
        "out_of_memory",
        "CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU 0 has a total capacity of 79.25 GiB of which 1.20 GiB is free.",
    )
    assert describe_shortage(Shortage.HOST, MemoryError()).message == "The host ran out of memory."
    refused = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    assert describe_shortage(Shortage.HOST, RuntimeError(f"{refused}allocate 9 bytes.\nError code 12")).message == (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12."
    )


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OutOfMemoryError(CUDA), Shortage.DEVICE),
        (OfALibrary("full"), Shortage.DEVICE),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), Shortage.DEVICE),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Shortage.DEVICE),
        (MemoryError(), Shortage.HOST),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Shortage.HOST),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), Shortage.HOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_each_report_is_recognised(error: Exception, found: Shortage | None) -> None:
    assert find_shortage(error) is found


def test_an_error_that_another_was_raised_from_is_found() -> None:
    error = ModelLoadError("It could not be loaded.")
    error.__cause__ = RuntimeError("DefaultCPUAllocator: not enough memory")
    assert find_shortage(error) is Shortage.HOST


def test_kills_are_those_of_the_own_cgroup_where_it_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, groups, machine = tmp_path / "cgroup", tmp_path / "groups", tmp_path / "vmstat"
    for name, path in (("_OWN_CGROUP", own), ("_CGROUPS", groups), ("_VMSTAT", machine)):
        monkeypatch.setattr(shortage, name, path)
    assert count_oom_kills() is None
    machine.write_text("nr_free_pages 12\noom_kill 7\n")
    own.write_text("4:memory:/old\n0::/worker.slice\n")
    assert count_oom_kills() == 7
    (groups / "worker.slice").mkdir(parents=True)
    (groups / "worker.slice" / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert count_oom_kills() == 2
