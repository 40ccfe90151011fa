"""A child that trains nothing: it speaks the real protocol (assignment, spool, signals) and follows a script.

Run by the worker's tests in place of `python -m worker.child`, as a real process. The data folder's file `script` says
which of SCRIPTS it follows.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from app.core.errors import AppError
from worker.child import describe_error
from worker.context import SIGNALS, Assignment, JobContext, StopRequest
from worker.imports import run_import
from worker.inbox import FILE, InboxReader
from worker.spool import SpoolWriter


def main() -> int:
    line = sys.stdin.readline()
    if not line:
        return 0
    assignment = Assignment.from_line(line)
    log = os.open(assignment.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    script = Path(assignment.job_folder).parent.parent / "script"
    context = JobContext(assignment, SpoolWriter(Path(assignment.spool)))
    context.listen()
    return SCRIPTS[script.read_text()](context)


def complete(context: JobContext) -> int:
    print("training begins", flush=True)
    context.spool.start(0)
    context.spool.phase("train")
    for step in (1, 2, 3):
        context.spool.metrics(step, {"loss": 3.0 / step})
        context.spool.progress(step, 3, eta_seconds=3.0 - step)
    context.spool.finished("completed", summary={"train_loss": 1.0})
    return 0


def fail(context: JobContext) -> int:
    print("something is wrong", flush=True)
    context.spool.finished("failed", error={"kind": "job_failed", "message": "It did not work.", "advice": "Try less."})
    return 1


def die(context: JobContext) -> int:
    print("the last words", flush=True)
    context.spool.metrics(1, {"loss": 2.0})
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def really_import(context: JobContext) -> int:
    """Imports are real, any other job completes."""
    if context.assignment.kind != "import":
        return complete(context)
    try:
        context.spool.finished("completed", summary=run_import(context))
    except AppError as error:
        context.spool.finished("failed", error=describe_error(error))
        return 1
    return 0


def leave_half(context: JobContext) -> int:
    """Killed while half a merged model lies there."""
    half = context.folder / ".merged.partial"
    half.mkdir(exist_ok=True)
    (half / "model.safetensors").write_bytes(bytes(1000))
    return die(context)


def wait_for_stop(context: JobContext) -> int:
    context.spool.phase("train")
    context.spool.metrics(1, {"loss": 2.0})
    while context.stop_request is None:
        time.sleep(0.01)
    context.spool.metrics(2, {"loss": 1.0 if context.stop_request is StopRequest.SAVE else 1.5})
    context.spool.finished("cancelled")
    return 0


def wait_for_go(context: JobContext) -> int:
    """Goes on once the file `go` is in the job's folder, whoever lives then."""
    context.spool.phase("train")
    tell_step(context, 1)
    while not (context.folder / "go").exists():
        time.sleep(0.01)
        if context.save_now:
            context.save_now = False
            context.spool.phase("save")
        if context.sample_now:
            context.sample_now = False
            context.spool.phase("sample")
    tell_step(context, 2)
    context.spool.finished("completed", summary={"train_loss": 1.0})
    return 0


def meet_full_disk(context: JobContext) -> int:
    """The disk is full behind step 1 until the file `go` is there: the kernel says ENOSPC to what is appended."""
    context.spool.phase("train")
    tell_step(context, 1)
    spool = context.spool._descriptor
    room = os.dup(spool)
    os.dup2(os.open("/dev/full", os.O_WRONLY), spool)
    threading.Thread(target=make_room, args=(context.folder / "go", room, spool)).start()
    tell_step(context, 2)
    context.spool.finished("completed", summary={"train_loss": 1.0})
    return 0


def make_room(go: Path, room: int, spool: int) -> None:
    while not go.exists():
        time.sleep(0.01)
    os.dup2(room, spool)


def tell_step(context: JobContext, step: int) -> None:
    print(f"step {step}", flush=True)
    context.spool.metrics(step, {"loss": 3.0 / step})
    context.spool.progress(step, 2)


def save_when_asked(context: JobContext) -> int:
    """Asked to stop and save it takes its time; that the worker stops meanwhile changes nothing."""
    context.spool.phase("train")
    while context.stop_request is None:
        time.sleep(0.01)
    context.spool.phase("save")
    while context.stop_by is None:
        time.sleep(0.01)
    context.spool.finished("cancelled", summary={"stopped_by_user": context.stop_request is StopRequest.SAVE})
    return 0


def ignore_signals(context: JobContext) -> int:
    for number in SIGNALS.values():
        signal.signal(number, signal.SIG_IGN)
    context.spool.phase("train")
    while True:
        time.sleep(0.05)


def write_nonsense(context: JobContext) -> int:
    context.spool.metrics(1, {"loss": 2.0})
    with open(context.assignment.spool, "ab") as spool:
        spool.write(b"00000000 {not a record}\n")
        spool.flush()
        print("behind the damage", flush=True)
    time.sleep(30)
    return 0


def chat(context: JobContext) -> int:
    """Echoes each question; one that begins with "slow" until it is stopped. Any other job completes."""
    if context.assignment.kind != "playground":
        return complete(context)
    inbox, requests = InboxReader(Path(context.assignment.spool).with_name(FILE)), list[dict[str, Any]]()
    while context.stop_request is None:
        requests += inbox.poll()
        request = requests.pop(0) if requests else {}
        if "turn" in request and not echo(context, request["turn"], inbox, requests):
            context.spool.finished("cancelled")
            return 0
        if "end" in request:
            break
        time.sleep(0.01)
    ended = "asked" if context.stop_request else "room"
    context.spool.finished("completed", summary={"turns": 1, "ended": ended})
    return 0


def echo(context: JobContext, turn: dict[str, Any], inbox: InboxReader, requests: list[dict[str, Any]]) -> bool:
    """False where the process is to end before the answer does."""
    for side, messages in turn["messages"].items():
        prompt, told = messages[-1]["content"], {"turn": turn["id"], "side": side}
        context.spool.write("piece", {**told, "at": 0, "text": "Aye", "tokens": 1})
        while prompt.startswith("slow") and {"stop": turn["id"]} not in requests:
            requests += inbox.poll()
            if context.stop_request is not None:
                return False
            time.sleep(0.01)
        text = f"{context.assignment.attempt}: {len(messages)} {prompt}"
        stop_reason = "cancelled" if prompt.startswith("slow") else "eos"
        context.spool.write("answer", {**told, "text": text, "tokens": 2, "stop_reason": stop_reason, "seconds": 0.1})
    context.spool.phase("idle")
    return True


SCRIPTS = {
    "chat": chat,
    "complete": complete,
    "fail": fail,
    "half": leave_half,
    "die": die,
    "import": really_import,
    "wait": wait_for_stop,
    "go": wait_for_go,
    "full disk": meet_full_disk,
    "save": save_when_asked,
    "ignore signals": ignore_signals,
    "nonsense": write_nonsense,
}

if __name__ == "__main__":
    sys.exit(main())
