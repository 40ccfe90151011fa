"""What this box has, for whoever sees the dashboard for the first time."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.core.disk import Disk
from app.web.templating import format_bytes

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the table."""

    label: str
    value: str
    note: str = ""


def describe_box(reading: Mapping[str, Any] | None, disk: Disk, can: str) -> list[Fact]:
    """GPU, memory, disk and versions; `can` is what training can do here. What is not known is said to be that."""
    return [
        *_devices(reading),
        Fact("Memory", *_memory(reading)),
        Fact("Disk", f"{format_bytes(disk.free_bytes)} free of {format_bytes(disk.total_bytes)}"),
        Fact("Processor", f"{os.cpu_count() or 'unknown'} cores"),
        Fact("Versions", ", ".join(_versions())),
        Fact("Training", can),
    ]


def _devices(reading: Mapping[str, Any] | None) -> Iterator[Fact]:
    if reading is None:
        yield Fact("GPU", "not known yet", "the worker has not read it")
        return
    for device in reading["devices"]:
        yield Fact(
            "GPU", device["name"] or f"GPU {device['index']}", f"{format_bytes(device['vram_total_bytes'])} VRAM"
        )
    if not reading["devices"]:
        yield Fact("GPU", "none: jobs run on the processor", reading.get("reason") or "")


def _memory(reading: Mapping[str, Any] | None) -> tuple[str, str]:
    host = (reading or {}).get("host") or {}
    total, used = host.get("ram_total_bytes"), host.get("ram_used_bytes")
    if total is None:
        return "not known yet", ""
    return format_bytes(total), "" if used is None else f"{format_bytes(total - used)} free"


@cache
def _versions() -> tuple[str, ...]:
    """Of what was installed beside the dashboard when it was first asked; nothing is imported."""
    return (f"Python {platform.python_version()}", *(_version(package) for package in _PACKAGES))


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"
