"""What a killed process left of an upload is told from what another is busy with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from app.core.datasets.staging import Staging, collect

_FILL = """
import sys
from pathlib import Path
from app.core.datasets.staging import Staging
staging = Staging(Path(sys.argv[1]))
(staging.path / "source.jsonl").write_text("half")
print(staging.path.name, flush=True)
sys.stdin.read()
"""


def test_a_killed_process_folder_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    mine = Staging(tmp_path)
    command = [sys.executable, "-c", _FILL, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert collect(tmp_path) == 0
        assert (tmp_path / name / "source.jsonl").exists()
        other.kill()
        other.wait()
    assert collect(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [mine.path]
    mine.close()
    assert list(tmp_path.iterdir()) == []


def test_files_beside_the_folders_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    assert collect(tmp_path) == 0
    assert (tmp_path / "note").exists()
