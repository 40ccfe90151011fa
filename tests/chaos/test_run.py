"""Real processes that train a tiny model, killed again and again while they work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KILLS = 30
SEED = 1
_ROOT = Path(__file__).parent.parent.parent


def test_thirty_kills_of_child_worker_and_web_lose_nothing() -> None:
    command = [sys.executable, "-m", "chaos", "--seed", str(SEED), "--kills", str(KILLS)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, f"{done.stderr[-8000:]}\n{done.stdout}"
    report = json.loads(done.stdout)
    assert report["kills"] == KILLS
    assert {name.partition(":")[0] for name in report["kills_by_window"]} == {"child", "worker", "web"}
    assert report["broken"] == []
    assert report["seconds_to_resume"]["longest"] <= 60
    assert min(report["invariants"].values()) > 0
    assert report["stream"]["cuts"] > 0
