"""Build the stand-in NVML library, script its readings while it runs, and sample it from a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

GIB = 1024**3
REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("fake_nvml.c")


@dataclass(frozen=True)
class Failure:
    """An NVML error code in place of a reading."""

    code: int

    def __str__(self) -> str:
        return f"!{self.code}"


UNINITIALIZED = Failure(1)
NOT_SUPPORTED = Failure(3)
NO_PERMISSION = Failure(4)
INSUFFICIENT_SIZE = Failure(7)
DRIVER_NOT_LOADED = Failure(9)
GPU_IS_LOST = Failure(15)
VERSION_MISMATCH = Failure(18)
UNKNOWN = Failure(999)

Processes = Mapping[int, int | None]  # pid -> bytes, None where NVML has no figure


@dataclass(frozen=True)
class ScriptedDevice:
    """What one device answers. None leaves the value out, which NVML calls not supported."""

    name: str | Failure | None = "Stand-in GPU"
    uuid: str | Failure | None = "GPU-00000000-aaaa-bbbb-cccc-000000000000"
    total: int | Failure | None = 24 * GIB
    reserved: int | None = GIB // 2
    used: int | Failure | None = 2 * GIB
    utilization: int | Failure | None = 37
    temperature: int | Failure | None = 61
    power: int | Failure | None = 210_500  # milliwatts
    power_limit: int | Failure | None = 350_000
    compute: Processes | Failure | None = field(default_factory=dict)
    graphics: Processes | Failure | None = field(default_factory=dict)
    handle: Failure | None = None
    everything: Failure | None = None

    def lines(self, index: int) -> list[str]:
        values = {**vars(self), "*": self.everything}
        return [f"{index}.{key}={_text(value)}" for key, value in values.items() if value is not None]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{pid}:{'na' if used is None else used}" for pid, used in value.items())
    return str(value)


def compile_library(folder: Path, *, old_driver: bool = False) -> Path:
    """Compile `libnvidia-ml.so.1` into `folder`. Raises: CalledProcessError."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    defines = ["-DOLD_DRIVER"] if old_driver else []
    subprocess.run(["cc", *flags, *defines, "-o", str(library), str(SOURCE)], check=True)
    return library


class ScriptedNvml:
    """The stand-in as one test scripts it. Any process started with `environment()` sees these readings."""

    def __init__(self, library_folder: Path, folder: Path) -> None:
        self._library_folder = library_folder
        self._script = folder / "nvml-script.txt"
        self._calls = folder / "nvml-calls.txt"
        self.script(ScriptedDevice())

    def script(
        self,
        *devices: ScriptedDevice,
        init: Failure | None = None,
        everything: Failure | None = None,
        processes: Mapping[int, str] | None = None,
    ) -> None:
        """Change what is read from now on. `processes` maps a pid to its executable's path."""
        lines = [f"count={len(devices)}"]
        lines += [f"{key}={value}" for key, value in (("init", init), ("*", everything)) if value is not None]
        lines += [f"process.{pid}={path}" for pid, path in (processes or {}).items()]
        lines += [line for index, device in enumerate(devices) for line in device.lines(index)]
        fresh = self._script.with_suffix(".new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self._script)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._library_folder),
            "NVML_SCRIPT": str(self._script),
            "NVML_CALLS": str(self._calls),
        }

    def take_calls(self) -> list[str]:
        """Names of the NVML functions called since the last time, in order."""
        if not self._calls.exists():
            return []
        calls = self._calls.read_text().split()
        self._calls.unlink()
        return calls


class SamplingProcess:
    """A process that samples when told to, on a clock that the test sets."""

    def __init__(self, environment: Mapping[str, str], data_folder: Path) -> None:
        self._log_path = data_folder / "sampling.log"
        with self._log_path.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.nvml.sample_process", str(data_folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
                env=dict(environment),
            )

    def sample(self, child_pid: int | None = None, *, clock: float = 0.0) -> dict[str, Any]:
        """The JSON of one sample, `clock` seconds after the process started."""
        _pipe(self._process.stdin).write(json.dumps({"child_pid": child_pid, "clock": clock}) + "\n")
        _pipe(self._process.stdin).flush()
        line = _pipe(self._process.stdout).readline()
        assert line, f"the sampling process died:\n{self._log_path.read_text()}"
        reading: dict[str, Any] = json.loads(line)
        return reading

    def log_lines(self) -> list[str]:
        return self._log_path.read_text().splitlines()

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait(timeout=10)
        _pipe(self._process.stdout).close()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
