"""Fixtures of the stand-in, for any test that wants a scripted GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.nvml.stand_in import SamplingProcess, ScriptedNvml, compile_library


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in `libnvidia-ml.so.1`; its folder goes into `LD_LIBRARY_PATH`."""
    return compile_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path) -> ScriptedNvml:
    """A scripted GPU: `script()` sets its readings, `environment()` is for the process that shall see it."""
    return ScriptedNvml(nvml_library.parent, tmp_path)


@pytest.fixture
def start_sampling(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], SamplingProcess]]:
    """Start a process that samples under an environment; ended with the test."""
    started: list[SamplingProcess] = []

    def start(environment: Mapping[str, str]) -> SamplingProcess:
        started.append(SamplingProcess(environment, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def sampling(nvml: ScriptedNvml, start_sampling: Callable[[Mapping[str, str]], SamplingProcess]) -> SamplingProcess:
    """A process that samples the scripted GPU."""
    return start_sampling(nvml.environment())
