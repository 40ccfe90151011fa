from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from worker.host import HostSampler, find_family


def test_memory_and_disk_are_those_of_this_machine(tmp_path: Path) -> None:
    reading = HostSampler(tmp_path).sample(())

    assert reading.ram_total_bytes == psutil.virtual_memory().total
    assert 0 < reading.ram_used_bytes < reading.ram_total_bytes
    assert reading.disk_total_bytes == psutil.disk_usage(str(tmp_path)).total
    assert reading.disk_free_bytes == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.05)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_processor_load_is_unknown_until_there_is_an_interval_to_compare(tmp_path: Path) -> None:
    sampler = HostSampler(tmp_path)
    spin(0.2)
    with ThreadPoolExecutor(max_workers=1) as thread:  # as the worker does: made in one thread, used in another
        first = thread.submit(sampler.sample, ()).result().cpu_percent
        at_once = thread.submit(sampler.sample, ()).result().cpu_percent
        spin(0.3)
        later = thread.submit(sampler.sample, ()).result().cpu_percent

    assert (first, at_once) == (None, None)
    assert later is not None
    assert 0 < later <= 100


def test_data_folder_that_is_not_there_has_unknown_disk_space(tmp_path: Path) -> None:
    reading = HostSampler(tmp_path / "absent").sample(())

    assert (reading.disk_total_bytes, reading.disk_free_bytes) == (None, None)


def test_no_child_has_no_family_and_no_memory_figure(tmp_path: Path) -> None:
    assert find_family(None) == ()
    assert HostSampler(tmp_path).sample(()).child_rss_bytes is None


def test_family_starts_with_the_process_itself() -> None:
    assert find_family(psutil.Process().pid)[0] == psutil.Process()


def test_process_that_has_ended_has_no_memory_figure(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    ended = psutil.Process(child.pid)
    while ended.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert HostSampler(tmp_path).sample((ended,)).child_rss_bytes is None
    child.wait()
