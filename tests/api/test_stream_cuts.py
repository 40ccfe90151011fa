"""A stream that is cut at random bytes, by a dashboard that dies in between, as `python -m bench.stream_cuts` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import stream_cuts


@pytest.mark.parametrize("seed", [3])
def test_fifty_cuts_and_a_killed_dashboard_lose_and_repeat_no_event(tmp_path: Path, seed: int) -> None:
    seen = stream_cuts.run(tmp_path, cuts=50, seed=seed, restarts=1)
    assert seen["events"] > 50
    assert {name: seen[name] for name in ("missing", "twice", "out_of_order")} == {
        "missing": 0, "twice": 0, "out_of_order": 0,
    }  # fmt: skip
