"""What a job's code is handed inside the child: its assignment, the spool, and whether to stop."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

from worker.in_hand import FILE, InHand
from worker.spool import SpoolWriter


class StopRequest(StrEnum):
    """What the user asked a running child to do."""

    CANCEL = "cancel"
    SAVE = "save"  # end early, but save the adapter


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

    def to_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Assignment:
        return cls(**json.loads(line))


@dataclass(slots=True)
class JobContext:
    """Handed to every job function. SIGTERM asks to cancel, SIGUSR1 to stop and save; code polls `stop_request`."""

    assignment: Assignment
    spool: SpoolWriter
    stop_request: StopRequest | None = None
    payload: dict[str, Any] = field(init=False)
    in_hand: InHand = field(init=False)  # what it works on, for the case that it is killed

    def __post_init__(self) -> None:
        self.payload = self.assignment.payload
        self.in_hand = InHand(Path(self.assignment.spool).parent / FILE)

    @property
    def folder(self) -> Path:
        """The job's own folder, `jobs/<id>`."""
        return Path(self.assignment.job_folder)

    def listen(self) -> None:
        """Turn signals into `stop_request`. A cancel outranks a save."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM or self.stop_request is None:
            self.stop_request = StopRequest.CANCEL if number == signal.SIGTERM else StopRequest.SAVE
