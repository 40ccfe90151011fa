"""A disk that fills up at any write of the database costs nothing; `python -m chaos.no_room` tries every one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.sampling import evenly

_TRY = """
import os, sys
from pathlib import Path
from chaos.preload import PreloadedDisk
disk, file = PreloadedDisk(), Path(sys.argv[1], "file")
disk.begin(file, 2)
out = os.open(file, os.O_WRONLY | os.O_CREAT)
print(os.write(out, b"12345678"), os.write(out, b"12345678"), disk.full, disk.filled_by)
try:
    os.pwrite(out, b"1", 0)
except OSError as error:
    print(error.errno)
Path(sys.argv[1], "another").write_text("not counted")
disk.make_room()
print(os.write(out, b"1"), disk.writes, disk.full)
"""


def test_a_database_whose_disk_fills_up_at_any_write_loses_nothing() -> None:
    command = [sys.executable, "-m", "chaos.no_room", "--at", "4"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(run.stdout)
    assert (result["broken"], run.returncode, result["tried"]) == ([], 0, 4), run.stderr
    assert result["writes"] > 50
    assert result["filled_by"].get("nothing", 0) < 2, "the last write of one run may be none of another's"
    assert result["refused"] > 0


def test_the_library_fills_the_disk_at_the_write_that_was_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from chaos.preload import run_preloaded; "
        "sys.exit(run_preloaded(Path(sys.argv[1]), 'chaos_try', [sys.argv[1]]))"
    )
    (tmp_path / "chaos_try.py").write_text(_TRY)
    command = [sys.executable, "-c", program, str(tmp_path)]
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert run.stdout.splitlines() == ["8 4 True file", "28", "1 4 False"]


@pytest.mark.parametrize(("count", "at", "chosen"), [(3, 9, [1, 2, 3]), (9, 3, [1, 5, 9]), (9, 1, [1]), (0, 5, [])])
def test_what_is_tried_of_many(count: int, at: int, chosen: list[int]) -> None:
    assert evenly(count, at) == chosen
