"""A preview in a process of its own, as the worker starts it: without torch, and not to be held up by a template."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.datasets.xray import XRAY_FILE
from tests.worker.datasets.test_preview import preview_payload, save_tokenizer
from tests.worker.tiny import CHAT_TEMPLATE, ROWS, write_rows
from worker.context import Assignment
from worker.spool import read_spool

pytestmark = pytest.mark.model

CHILD = "import sys, worker.child as child; code = child.main(); print(sys.modules['torch']); sys.exit(code)"


def run_child(folder: Path, template: str) -> subprocess.CompletedProcess[str]:
    """One preview of all rows under the template."""
    save_tokenizer(folder / "model", template)
    payload = preview_payload(folder / "model", write_rows(folder / "rows.jsonl"), len(ROWS), task="sft")
    paths = (str(folder), str(folder / "spool.jsonl"), str(folder / "train.log"))
    line = Assignment(1, "preview", 1, *paths, payload, light=True).to_line()
    return subprocess.run(
        [sys.executable, "-c", CHILD], input=line, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_light_child_shows_rows_without_torch(tmp_path: Path) -> None:
    run = run_child(tmp_path, CHAT_TEMPLATE)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "train.log").read_text() == "None\n"
    outcome = [record.data for record, _ in read_spool(tmp_path / "spool.jsonl") if record.kind == "finished"]
    assert outcome[0]["summary"] == {"first": 1, "last": 24, "found": None, "searched_to": None}
    assert len(json.loads((tmp_path / XRAY_FILE).read_bytes())["rows"]) == 24


def test_a_template_that_python_cannot_break_off_ends_with_its_process(tmp_path: Path) -> None:
    run = run_child(tmp_path, "{{ (10 ** (10 ** 9)) | string }}")
    assert run.returncode == -signal.SIGPROF
    assert not (tmp_path / XRAY_FILE).exists()
