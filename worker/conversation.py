"""Hand a chat's questions to its child, stop an answer that nobody wants, and make room for a job that waits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlmodel import Session

from app.core.chats.models import ChatTurn
from app.core.chats.turns import conversation, find_open_turn, list_turns
from app.core.jobs.claims import find_next
from app.core.jobs.models import Job
from worker.inbox import FILE, InboxWriter
from worker.lanes import lane_of

logger = logging.getLogger(__name__)


class Conversation:
    """One child's inbox. Each question is handed over once; an adopted child may have got some from another worker."""

    def __init__(self, attempt_folder: Path) -> None:
        self._inbox = InboxWriter(attempt_folder / FILE)
        self._handed: set[int] = set()
        self._stopped: set[int] = set()
        self._ended = False
        for request in self._inbox.written:
            self._note(request)

    def pass_on(self, session: Session, job: Job) -> None:
        """What is new. Once the child was told to end, what comes later is another process's. Raises: OSError."""
        turn = find_open_turn(session, job.key)
        if turn is not None and turn.key not in self._handed and not self._ended:
            self._put({"turn": _describe(session, job, turn)})
        if turn is not None and turn.stop_requested and turn.key in self._handed - self._stopped:
            self._put({"stop": turn.key})
        if not self._ended and find_next(session, lane_of(job)) is not None:
            logger.info("chat %s ends after this answer: a job waits", job.id, extra={"job_id": job.id})
            self._put({"end": "room"})

    def _put(self, request: dict[str, Any]) -> None:
        self._inbox.put(request)
        self._note(request)

    def _note(self, request: dict[str, Any]) -> None:
        if "turn" in request:
            self._handed.add(request["turn"]["id"])
        if "stop" in request:
            self._stopped.add(request["stop"])
        self._ended = self._ended or "end" in request


def _describe(session: Session, job: Job, turn: ChatTurn) -> dict[str, Any]:
    """The question as the child needs it: to whom it still has to be put, with what was said before."""
    turns = list_turns(session, job)
    sides = [side for side in turn.sides if side not in turn.answers]
    return {
        "id": turn.key,
        "messages": {side: conversation(turns, turn, side) for side in sides},
        "system": turn.system,
        "sampling": turn.sampling,
    }
