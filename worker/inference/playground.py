"""Playground jobs: one answer, or a chat whose process waits for further questions."""

from __future__ import annotations

from typing import Any

from worker.context import JobContext
from worker.inference.chat import Chat
from worker.inference.generate import run_generate


def run_playground(context: JobContext) -> dict[str, Any]:
    """What the payload asks for. Raises: InvalidInput, ModelLoadError, JobCancelled."""
    return Chat(context).run() if context.payload.get("chat") else run_generate(context)
