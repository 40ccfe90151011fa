"""The process that proves a merge: `python -m worker.artifacts.proof`, with the task as a line of JSON on its input."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from app.core.errors import AppError
from worker.artifacts.disk import is_disk_full
from worker.child import prepare_process
from worker.own_code import allow_code

_ROOM_SECONDS = 1.0  # between two tries on a full disk


def main() -> int:
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_process()
    try:
        answer = _prove(task)
    except AppError as error:
        answer = {"passed": False, "message": error.message, "advice": error.advice}
    leave_answer(Path(task["answer"]), answer)
    return 0


def leave_answer(path: Path, answer: dict[str, Any]) -> None:
    """Leave it there whole, or not at all. On a full disk it waits for room, unless the job ends this process."""
    partial = path.with_name(f"{path.name}.partial")
    while True:
        try:
            partial.write_text(json.dumps(answer), encoding="utf-8")
            break
        except OSError as error:
            if not is_disk_full(error):
                raise
        time.sleep(_ROOM_SECONDS)
    partial.replace(path)


def _prove(task: dict[str, Any]) -> dict[str, Any]:
    """With the imports that the preparation is for."""
    allow_code(task)
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    importlib.import_module("worker.training.model").set_threads()
    answer: dict[str, Any] = importlib.import_module("worker.artifacts.certificate").prove(task)
    return answer


def _end_with_parent() -> None:
    """The pipe ends when the job's process does, however that ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
