"""The batch in hand outlives the process that works on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.worker.contexts import Ids
from worker.in_hand import FILE, InHand, Origins, read_in_hand

BATCH: dict[str, Any] = {"origins": Origins((4, 7, None), (5, 9, 2)), "tokens": 16, "input_ids": Ids(27)}
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.worker.test_in_hand import BATCH, FILE, InHand
InHand(Path(sys.argv[1]) / FILE).take(3, BATCH)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_batch_is_told_by_its_rows_the_longest_first(tmp_path: Path) -> None:
    in_hand = InHand(tmp_path / FILE)
    in_hand.describe_rows([3, 40, 64, 10], max_length=64)
    in_hand.take(3, BATCH)
    assert read_in_hand(tmp_path) == in_hand.last == {
        "step": 3,
        "micro_batch": 1,
        "sequences": 3,
        "tokens": 16,
        "places": 27,
        "longest": [[7, 9], [4, 5], [None, 2]],
        "rows_in_all": 4,
        "longest_row": 64,
        "longer_than": [[32, 2], [16, 2]],
    }  # fmt: skip


def test_the_file_is_always_of_the_last_batch_and_of_one_size(tmp_path: Path) -> None:
    in_hand = InHand(tmp_path / FILE)
    assert (in_hand.last, read_in_hand(tmp_path)) == (None, None)
    many: dict[str, Any] = {"origins": Origins((1,) * 500, (7,) * 500), "tokens": 3500, "input_ids": Ids(3500)}
    counts = []
    for step, batch in ((1, many), (1, BATCH), (2, BATCH)):
        in_hand.take(step, batch)
        noted = read_in_hand(tmp_path)
        assert noted == in_hand.last
        counts.append((noted["step"], noted["micro_batch"]))
    assert counts == [(1, 1), (1, 2), (2, 1)]
    assert (tmp_path / FILE).stat().st_size == 2048


def test_what_a_killed_process_worked_on_is_known(tmp_path: Path) -> None:
    code = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[2]).returncode
    assert code == -signal.SIGKILL
    noted = read_in_hand(tmp_path)
    assert noted is not None
    assert noted["step"] == 3


def test_a_note_that_was_cut_in_the_writing_is_none(tmp_path: Path) -> None:
    InHand(tmp_path / FILE).take(3, BATCH)
    os.truncate(tmp_path / FILE, 20)
    assert read_in_hand(tmp_path) is None
