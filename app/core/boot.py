"""Time and place that no wall clock moves: which start of the machine this is, and the seconds since then."""

from __future__ import annotations

import time
from pathlib import Path


def boot_id() -> str:
    """Changes with every boot of the machine (of the kernel, also inside a container). Source: random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def uptime_seconds() -> float:
    """Since the boot, without what the machine slept; the same in every process. Source: clock_gettime(2)."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)
