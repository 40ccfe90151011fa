from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.nvml.stand_in import (
    DRIVER_NOT_LOADED,
    GIB,
    GPU_IS_LOST,
    INSUFFICIENT_SIZE,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNINITIALIZED,
    UNKNOWN,
    VERSION_MISMATCH,
    Failure,
    SamplingProcess,
    ScriptedDevice,
    ScriptedNvml,
    compile_library,
)

pytest_plugins = ("tests.nvml.fixtures",)

MIB = 1024**2
CODE_WITHOUT_A_NAME = Failure(98)  # the binding asks the library for its text
OTHER_PID = 4_000_001  # beyond the kernel's largest pid: no process of this machine
StartSampling = Callable[[Mapping[str, str]], SamplingProcess]

VALUE_NAMES = (
    "vram_total_bytes",
    "vram_used_bytes",
    "utilization_percent",
    "temperature_celsius",
    "power_watts",
    "power_limit_watts",
    "processes",
    "process_vram_bytes",
)


CHILD_WITH_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """Pids of a living child and of its own child."""
    command = [sys.executable, "-c", CHILD_WITH_A_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild_pid = int(process.stdout.readline())
        yield process.pid, grandchild_pid
        os.kill(grandchild_pid, signal.SIGKILL)


def only_device(reading: dict[str, Any]) -> dict[str, Any]:
    (device,) = reading["devices"]
    assert isinstance(device, dict)
    return device


def test_normal_device_gives_every_value_in_its_unit(sampling: SamplingProcess) -> None:
    reading = sampling.sample()

    assert (reading["available"], reading["reason"]) == (True, None)
    assert only_device(reading) == {
        "index": 0,
        "name": "Stand-in GPU",
        "uuid": "GPU-00000000-aaaa-bbbb-cccc-000000000000",
        "vram_total_bytes": 24 * GIB,
        "vram_used_bytes": 2 * GIB,
        "utilization_percent": 37,
        "temperature_celsius": 61,
        "power_watts": 210.5,
        "power_limit_watts": 350.0,
        "processes": [],
        "process_vram_bytes": None,
    }


def test_values_follow_the_device_from_sample_to_sample(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    before = only_device(sampling.sample())
    nvml.script(ScriptedDevice(used=9 * GIB, utilization=0, temperature=80))
    after = only_device(sampling.sample(clock=1))

    assert (before["vram_used_bytes"], after["vram_used_bytes"]) == (2 * GIB, 9 * GIB)
    assert (after["utilization_percent"], after["temperature_celsius"]) == (0, 80)


@pytest.mark.parametrize(
    ("field", "unreadable"),
    [
        ("name", {"name"}),
        ("uuid", {"uuid"}),
        ("used", {"vram_total_bytes", "vram_used_bytes"}),
        ("utilization", {"utilization_percent"}),
        ("temperature", {"temperature_celsius"}),
        ("power", {"power_watts"}),
        ("power_limit", {"power_limit_watts"}),
    ],
)
def test_unreadable_value_is_null_and_the_others_stay(
    nvml: ScriptedNvml, sampling: SamplingProcess, field: str, unreadable: set[str]
) -> None:
    for clock, failure in enumerate((NOT_SUPPORTED, NO_PERMISSION, UNKNOWN, CODE_WITHOUT_A_NAME)):
        values: dict[str, Any] = {field: failure}
        nvml.script(ScriptedDevice(**values))
        reading = sampling.sample(clock=clock)
        nulls = {name for name, value in only_device(reading).items() if value is None} - {"process_vram_bytes"}
        assert (nulls, reading["available"], reading["reason"]) == (unreadable, True, None)


def test_unreadable_value_is_logged_once_however_often_it_fails(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script(ScriptedDevice(power=None), ScriptedDevice(everything=GPU_IS_LOST))
    for second in range(20):
        sampling.sample(clock=second)

    assert len([line for line in sampling.log_lines() if "gives no power:" in line]) == 1


def test_two_devices_keep_their_own_values(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script(ScriptedDevice(uuid="GPU-0", used=GIB), ScriptedDevice(uuid="GPU-1", used=5 * GIB, name="Other"))
    devices = sampling.sample()["devices"]

    seen = [(d["index"], d["uuid"], d["name"], d["vram_used_bytes"]) for d in devices]
    assert seen == [(0, "GPU-0", "Stand-in GPU", GIB), (1, "GPU-1", "Other", 5 * GIB)]


def test_no_device_is_not_available_and_says_so(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script()
    reading = sampling.sample()

    assert (reading["available"], reading["devices"]) == (False, [])
    assert "reports no GPU" in reading["reason"]


def test_processes_are_named_and_the_child_with_its_descendants_summed(
    nvml: ScriptedNvml, sampling: SamplingProcess, family: tuple[int, int]
) -> None:
    child, grandchild = family
    nvml.script(
        ScriptedDevice(compute={OTHER_PID: 7 * GIB, child: 300 * MIB, grandchild: 200 * MIB}),
        processes={OTHER_PID: "/opt/games/some game", child: "/usr/bin/python3.11"},
    )
    device = only_device(sampling.sample(child))

    assert device["process_vram_bytes"] == 500 * MIB
    by_pid = {process.pop("pid"): process for process in device["processes"]}
    assert by_pid == {
        OTHER_PID: {"process_vram_bytes": 7 * GIB, "name": "some game", "is_child": False},
        child: {"process_vram_bytes": 300 * MIB, "name": "python3.11", "is_child": True},
        grandchild: {"process_vram_bytes": 200 * MIB, "name": None, "is_child": True},
    }


def test_process_without_a_figure_makes_the_childs_memory_unknown(
    nvml: ScriptedNvml, sampling: SamplingProcess, family: tuple[int, int]
) -> None:
    child, grandchild = family
    nvml.script(ScriptedDevice(compute={child: 300 * MIB, grandchild: None}))
    device = only_device(sampling.sample(child))

    assert {p["pid"]: p["process_vram_bytes"] for p in device["processes"]} == {child: 300 * MIB, grandchild: None}
    assert device["process_vram_bytes"] is None


def test_child_that_the_driver_does_not_list_has_unknown_memory(
    nvml: ScriptedNvml, sampling: SamplingProcess, family: tuple[int, int]
) -> None:
    nvml.script(ScriptedDevice(compute={OTHER_PID: GIB}))

    assert only_device(sampling.sample(family[0]))["process_vram_bytes"] is None


def test_process_in_both_lists_counts_once(
    nvml: ScriptedNvml, sampling: SamplingProcess, family: tuple[int, int]
) -> None:
    child = family[0]
    nvml.script(ScriptedDevice(compute={child: GIB}, graphics={child: GIB, OTHER_PID: 5 * MIB}))
    device = only_device(sampling.sample(child))

    assert [p["pid"] for p in device["processes"]] == sorted([child, OTHER_PID])
    assert device["process_vram_bytes"] == GIB


def test_one_readable_process_list_is_enough(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script(ScriptedDevice(compute={OTHER_PID: GIB}, graphics=NOT_SUPPORTED))

    assert [p["pid"] for p in only_device(sampling.sample())["processes"]] == [OTHER_PID]


@pytest.mark.parametrize("failure", [INSUFFICIENT_SIZE, NOT_SUPPORTED, NO_PERMISSION])
def test_unreadable_process_lists_are_null_not_empty(
    nvml: ScriptedNvml, sampling: SamplingProcess, failure: Failure
) -> None:
    nvml.script(ScriptedDevice(compute=failure, graphics=failure))
    reading = sampling.sample()

    assert only_device(reading)["processes"] is None
    assert only_device(reading)["vram_used_bytes"] == 2 * GIB
    assert reading["available"]


def test_each_value_is_read_once_per_sample(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script(ScriptedDevice(compute={OTHER_PID: GIB}))
    sampling.sample()
    nvml.take_calls()
    sampling.sample(clock=1)

    assert Counter(nvml.take_calls()) == {
        "nvmlDeviceGetMemoryInfo_v2": 1,
        "nvmlDeviceGetUtilizationRates": 1,
        "nvmlDeviceGetTemperatureV": 1,
        "nvmlDeviceGetPowerUsage": 1,
        "nvmlDeviceGetEnforcedPowerLimit": 1,
        "nvmlDeviceGetComputeRunningProcesses_v3": 2,  # the binding asks for the size, then for the list
        "nvmlDeviceGetGraphicsRunningProcesses_v3": 1,
        "nvmlSystemGetProcessName": 1,
    }


def test_lost_device_keeps_its_name_and_loses_its_values(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    sampling.sample()
    nvml.script(ScriptedDevice(everything=GPU_IS_LOST))
    reading = sampling.sample(clock=1)

    device = only_device(reading)
    assert device["name"] == "Stand-in GPU"
    assert {device[name] for name in VALUE_NAMES} == {None}
    assert not reading["available"]
    assert reading["reason"].startswith("GPU 0: The GPU is lost")


def test_one_lost_device_of_two_leaves_the_other_available(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    nvml.script(ScriptedDevice(), ScriptedDevice(everything=GPU_IS_LOST))
    reading = sampling.sample()
    first, second = reading["devices"]

    assert reading["available"]
    assert reading["reason"].startswith("GPU 1: The GPU is lost")
    assert first["vram_used_bytes"] == 2 * GIB
    assert {second[name] for name in VALUE_NAMES} == {None}


def test_lost_device_is_opened_again_with_growing_pauses_and_comes_back(
    nvml: ScriptedNvml, sampling: SamplingProcess
) -> None:
    sampling.sample()
    nvml.script(ScriptedDevice(everything=GPU_IS_LOST))
    nvml.take_calls()
    opened_at = []
    for second in range(1, 200):
        sampling.sample(clock=second)
        if "nvmlInitWithFlags" in nvml.take_calls():
            opened_at.append(second)
    assert opened_at == [2, 3, 5, 9, 17, 33, 65, 125, 185]

    nvml.script(ScriptedDevice())
    reading = sampling.sample(clock=245)
    assert (reading["available"], reading["reason"]) == (True, None)
    assert only_device(reading)["vram_used_bytes"] == 2 * GIB
    messages = [line for line in sampling.log_lines() if "GPU readings" in line]
    assert ["lost" in messages[0], "complete again" in messages[1], len(messages)] == [True, True, 2]


def test_session_is_closed_before_it_is_opened_again(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    sampling.sample()
    nvml.script(ScriptedDevice(everything=GPU_IS_LOST))
    nvml.take_calls()
    for second in (1, 2, 60):
        sampling.sample(clock=second)

    sessions = [call for call in nvml.take_calls() if call in {"nvmlInitWithFlags", "nvmlShutdown"}]
    assert sessions == ["nvmlShutdown", "nvmlInitWithFlags"] * 2


def test_session_that_the_driver_dropped_is_opened_again(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    sampling.sample()
    nvml.script(ScriptedDevice(), everything=UNINITIALIZED)
    reading = sampling.sample(clock=1)
    assert not reading["available"]
    assert "lost its session" in reading["reason"]

    nvml.script(ScriptedDevice())
    assert sampling.sample(clock=2)["available"]


@pytest.mark.parametrize(
    ("failure", "words"), [(VERSION_MISMATCH, "differ in version"), (DRIVER_NOT_LOADED, "driver is not loaded")]
)
def test_driver_that_fails_at_the_start_is_named_and_found_when_mended(
    nvml: ScriptedNvml, sampling: SamplingProcess, failure: Failure, words: str
) -> None:
    nvml.script(ScriptedDevice(), init=failure)
    reading = sampling.sample()
    assert (reading["available"], reading["devices"]) == (False, [])
    assert words in reading["reason"]
    assert reading["host"]["ram_total_bytes"] == psutil.virtual_memory().total

    nvml.script(ScriptedDevice())
    assert sampling.sample(clock=2)["available"]


def test_driver_updated_in_mid_run_is_a_reason_not_an_exception(nvml: ScriptedNvml, sampling: SamplingProcess) -> None:
    sampling.sample()
    nvml.script(ScriptedDevice(), init=VERSION_MISMATCH, everything=VERSION_MISMATCH)
    during = [sampling.sample(clock=second) for second in range(1, 30)]

    assert {reading["available"] for reading in during} == {False}
    assert all("differ in version" in reading["reason"] for reading in during)
    assert all(not reading["devices"] for reading in during[1:])


def test_old_driver_without_the_newer_functions_is_read_by_the_older(
    tmp_path: Path, start_sampling: StartSampling
) -> None:
    compile_library(tmp_path, old_driver=True)
    old = start_sampling(ScriptedNvml(tmp_path, tmp_path).environment())
    device = only_device(old.sample())

    assert device["vram_used_bytes"] == 2 * GIB + GIB // 2
    assert device["temperature_celsius"] == 61
    assert device["processes"] is None


def test_missing_library_is_named_and_the_host_still_read(tmp_path: Path, start_sampling: StartSampling) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()  # hides a real one from the loader, and cannot be loaded itself
    reading = start_sampling({**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}).sample()

    assert (reading["available"], reading["devices"]) == (False, [])
    assert "libnvidia-ml.so.1" in reading["reason"]
    assert reading["host"]["ram_total_bytes"] == psutil.virtual_memory().total
    assert reading["host"]["disk_total_bytes"] == psutil.disk_usage(str(tmp_path)).total


def _machine_has_nvml() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(_machine_has_nvml(), reason="this machine has an NVIDIA driver")
def test_machine_without_a_driver_is_not_available(start_sampling: StartSampling) -> None:
    reading = start_sampling(os.environ).sample()

    assert (reading["available"], reading["devices"]) == (False, [])
    assert "libnvidia-ml.so.1" in reading["reason"]


def test_missing_library_is_looked_for_every_30_seconds(
    nvml: ScriptedNvml, nvml_library: Path, tmp_path: Path, start_sampling: StartSampling
) -> None:
    later = tmp_path / "lib"
    later.mkdir()
    (later / nvml_library.name).touch()
    sampling = start_sampling({**nvml.environment(), "LD_LIBRARY_PATH": str(later)})
    assert not sampling.sample()["available"]

    (later / nvml_library.name).unlink()
    shutil.copy(nvml_library, later)
    assert not sampling.sample(clock=29)["available"]
    assert sampling.sample(clock=30)["available"]
    assert len([line for line in sampling.log_lines() if "libnvidia-ml.so.1" in line]) == 1


def test_reading_has_the_documented_keys(sampling: SamplingProcess) -> None:
    reading = sampling.sample()

    assert set(reading) == {"time", "available", "reason", "devices", "host"}
    assert {"index", "name", "vram_total_bytes", "vram_used_bytes", "utilization_percent"} <= set(only_device(reading))
    assert {"temperature_celsius", "power_watts", "processes"} <= set(only_device(reading))


def test_child_memory_on_the_host_covers_its_descendants(sampling: SamplingProcess, family: tuple[int, int]) -> None:
    child, grandchild = family
    rss_bytes = sampling.sample(child)["host"]["child_rss_bytes"]
    expected = sum(psutil.Process(pid).memory_info().rss for pid in family)

    assert rss_bytes == pytest.approx(expected, rel=0.05)
    assert rss_bytes > 1.5 * psutil.Process(grandchild).memory_info().rss


def test_child_that_has_ended_has_no_memory_figure(sampling: SamplingProcess) -> None:
    assert sampling.sample(OTHER_PID)["host"]["child_rss_bytes"] is None
