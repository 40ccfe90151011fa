"""A database that somebody else holds costs a running job nothing; `python -m chaos.locked` holds it for a minute."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def test_a_locked_database_refuses_with_when_to_try_again_and_loses_no_row() -> None:
    command = [sys.executable, "-m", "chaos.locked", "--seconds", "13"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stderr[-4000:]}\n{done.stdout}"
    result = json.loads(done.stdout)
    assert result["broken"] == []
    assert result["records_meanwhile"] > 100, "the job goes on"
    assert result["refused_with_retry_after"] > 0
