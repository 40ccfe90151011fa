"""A spare child is told which model its job will most likely train."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worker.children import Children

_WRITES_ITS_ARGUMENTS = "import sys; print(sys.argv[1:], flush=True); sys.stdin.read()"


@pytest.mark.parametrize(("model", "flags"), [(None, "['--spare']"), (Path("/models/1"), "['--spare', '/models/1']")])
def test_a_spare_is_started_with_the_likely_model(model: Path | None, flags: str, tmp_path: Path) -> None:
    log = tmp_path / "spare.log"
    command = (sys.executable, "-c", _WRITES_ITS_ARGUMENTS)
    children = Children(keep_spare=True, log=log, command=command, likely_model=lambda: model)
    children.ready_spare()
    spare = children._take_spare()
    assert spare is not None
    spare.communicate(timeout=30)
    assert log.read_text().strip() == flags
