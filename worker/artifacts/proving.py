"""Start the proof of a merge in a process of its own, and wait for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.core.errors import MergeError

PROOF_COMMAND = (sys.executable, "-m", "worker.artifacts.proof")
_POLL_SECONDS = 0.1
_FURTHER = "The job's log says more. The adapter itself is unharmed and can be downloaded."


def prove_apart(task: Mapping[str, Any], check_stop: Callable[[], None]) -> dict[str, Any]:
    """The certificate of a proof that passed. `check_stop`, which may raise, is called while it runs.

    The task names the file that the `answer` is left in. What the process says goes where this one's output goes; it
    ends when this one does, in whatever way. Raises: MergeError that says what differs.
    """
    process = subprocess.Popen(
        PROOF_COMMAND,
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what the job is asked by signals is not meant for it
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # a GPU that trains is left alone
    )
    try:
        _tell(process, task)
        while process.poll() is None:
            check_stop()
            time.sleep(_POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
    return _read(Path(task["answer"]), process.returncode)


def _tell(process: subprocess.Popen[str], task: Mapping[str, Any]) -> None:
    """The pipe stays open: its end would end the process."""
    if process.stdin is None:
        raise OSError("the proof has no standard input")
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        process.wait()  # it ended before it was told anything, and its code says how


def _read(answer: Path, code: int) -> dict[str, Any]:
    if not answer.is_file():
        killed = " It was killed: there was too little memory, most likely." if code == -9 else ""
        raise MergeError(
            f"The merged model could not be verified: the process ended with code {code}.{killed}", advice=_FURTHER
        )
    proof: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if not proof["passed"]:
        raise MergeError(proof["message"], advice=proof["advice"])
    return proof
