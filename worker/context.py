"""What a job's code is handed inside the child: its assignment, the spool, and whether to stop."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

from worker.in_hand import FILE, InHand
from worker.spool import SpoolWriter

INTERRUPT_SECONDS = 8.0  # from the worker's request to SIGKILL; `docker stop` grants 10
_MARGIN_SECONDS = 1.0  # of these, for what a child does besides saving


class StopRequest(StrEnum):
    """What a running child is asked to do, by the user or by the worker."""

    CANCEL = "cancel"
    SAVE = "save"  # end early, but save the adapter
    INTERRUPT = "interrupt"  # the worker stops: end within INTERRUPT_SECONDS, so that the job can go on later
    PAUSE = "pause"  # the same without a hurry; a job's code sees INTERRUPT, and no `stop_by`


SIGNALS = {
    StopRequest.CANCEL: signal.SIGUSR2,
    StopRequest.SAVE: signal.SIGUSR1,
    StopRequest.INTERRUPT: signal.SIGTERM,  # what a machine or a container that stops sends to everything
    StopRequest.PAUSE: signal.SIGTSTP,
}
SAVE_NOW = signal.SIGHUP  # a checkpoint after the step in hand; the job goes on
SAMPLE_NOW = signal.SIGURG  # samples after the step in hand; whoever does not know of it ignores it
_HELD = (SIGNALS[StopRequest.SAVE], SIGNALS[StopRequest.PAUSE], SAVE_NOW, SAMPLE_NOW)


def hold_requests() -> None:
    """Keep requests that would end a process without handlers until `JobContext.listen` can take them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One job for one child, as the supervisor writes it to the child's standard input (one JSON line)."""

    job_id: int
    kind: str
    attempt: int
    job_folder: str
    spool: str
    log: str
    payload: dict[str, Any]
    light: bool = False  # loads no torch, and has the limits of `worker.limits`
    secrets: dict[str, str] = field(default_factory=dict, repr=False)  # by name; only what this job needs

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Assignment:
        return cls(**json.loads(line))


@dataclass(slots=True)
class JobContext:
    """Handed to every job function, whose code polls `stop_request`, `save_now` and `sample_now`: signals set them."""

    assignment: Assignment
    spool: SpoolWriter
    stop_request: StopRequest | None = None
    stop_by: float | None = None  # by the monotonic clock, once the worker stops
    save_now: bool = False  # a checkpoint is asked for; whoever saves it resets this
    sample_now: bool = False  # samples are asked for; whoever tells them resets this
    payload: dict[str, Any] = field(init=False)
    in_hand: InHand = field(init=False)  # what it works on, for the case that it is killed

    def __post_init__(self) -> None:
        self.payload = self.assignment.payload
        self.in_hand = InHand(Path(self.assignment.spool).parent / FILE)

    @property
    def folder(self) -> Path:
        """The job's own folder, `jobs/<id>`."""
        return Path(self.assignment.job_folder)

    @property
    def in_a_hurry(self) -> bool:
        """Whether the worker stops: what is paused has time."""
        return self.stop_by is not None

    def seconds_to_stop(self) -> float:
        """What is left to save something in; unlimited while the worker does not stop."""
        return float("inf") if self.stop_by is None else self.stop_by - time.monotonic()

    def listen(self) -> None:
        """Turn signals into `stop_request`. A cancel outranks the others, of which the first holds."""
        for number in SIGNALS.values():
            signal.signal(number, self._on_signal)
        signal.signal(SAVE_NOW, self._on_save_now)
        signal.signal(SAMPLE_NOW, self._on_sample_now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)

    def _on_save_now(self, _number: int, _frame: FrameType | None) -> None:
        self.save_now = True

    def _on_sample_now(self, _number: int, _frame: FrameType | None) -> None:
        self.sample_now = True

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        request = next(each for each, sent in SIGNALS.items() if sent == number)
        if request is StopRequest.INTERRUPT and self.stop_by is None:
            self.stop_by = time.monotonic() + INTERRUPT_SECONDS - _MARGIN_SECONDS
        if request is StopRequest.PAUSE:
            request = StopRequest.INTERRUPT
        if request is StopRequest.CANCEL or self.stop_request is None:
            self.stop_request = request
