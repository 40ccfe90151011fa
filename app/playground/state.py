"""Where a chat stands, what has the GPU, and whether the CPU could answer instead."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.core.jobs.models import Job
from app.core.jobs.queries import find_awaited, gpu_occupant, latest_reading, queue_position, worker_view
from app.core.jobs.queue_state import get_queue
from app.core.jobs.status import ENDED, JobStatus
from app.core.models.models import BaseModel

_FP32_BYTES = 4
_BESIDE_WEIGHTS = 1.2  # keys, values and activations of one answer, and the process


@dataclass(frozen=True, slots=True)
class ChatState:
    """What a page says beside the form."""

    chat: Job | None
    worker_alive: bool
    has_gpu: bool
    occupant: Job | None  # what trains, merges or answers now
    queue_paused: bool
    position: int | None
    awaited: str | None  # the base model that is still being imported
    cpu_bytes: int | None  # what the model takes on the CPU
    free_bytes: int | None

    @property
    def live(self) -> bool:
        """Whether the chat waits or has a process."""
        return self.chat is not None and self.chat.status not in ENDED

    @property
    def queued(self) -> bool:
        return self.chat is not None and self.chat.status in (JobStatus.QUEUED, JobStatus.INTERRUPTED)

    @property
    def busy(self) -> bool:
        """Whether a question to the GPU would have to wait now."""
        return self.occupant is not None or self.queue_paused

    @property
    def on_cpu(self) -> bool:
        """Whether the chat was asked to stay off the GPU."""
        return self.chat is not None and self.chat.spec["device"] == "cpu"

    @property
    def cpu_fits(self) -> bool:
        """Unknown sizes are given the benefit of the doubt."""
        return self.cpu_bytes is None or self.free_bytes is None or self.cpu_bytes <= self.free_bytes


def describe_state(session: Session, chat: Job | None, model: BaseModel | None) -> ChatState:
    """As things stand now."""
    reading = latest_reading(session)
    host = (reading or {}).get("host") or {}
    total, used = host.get("ram_total_bytes"), host.get("ram_used_bytes")
    parameters = model.parameters if model is not None else None
    return ChatState(
        chat=chat,
        worker_alive=worker_view(session)["alive"],
        has_gpu=bool(reading and reading.get("available") and reading.get("devices")),
        occupant=gpu_occupant(session, chat),
        queue_paused=get_queue(session).paused,
        position=queue_position(session, chat) if chat is not None else None,
        awaited=find_awaited(session, chat) if chat is not None else None,
        cpu_bytes=int(parameters * _FP32_BYTES * _BESIDE_WEIGHTS) if parameters else None,
        free_bytes=total - used if total is not None and used is not None else None,
    )
