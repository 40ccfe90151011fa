"""A chat: the model stays loaded while questions come through the inbox, and goes once none has come for a while."""

from __future__ import annotations

import logging
import time
from collections import deque
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from app.core.errors import InvalidInput, JobCancelled
from app.core.jobs.sampling import parse_sampling
from worker.context import JobContext, StopRequest
from worker.inbox import FILE, InboxReader
from worker.inference.generate import Generation, continue_text, generate, with_system
from worker.inference.voices import Voices
from worker.spool import SpoolWriter
from worker.training.model import set_threads

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
PIECE_SECONDS = 0.1  # how often more of an answer is told; the worker takes it in as often


class Chat:
    """Answers what comes until it is told to end. Payload: chat, base_model {path}, trained (the folder of an adapter
    or of a whole model, or null), spec (of the training), device, idle_seconds."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._inbox = InboxReader(Path(context.assignment.spool).with_name(FILE))
        self._waiting: deque[dict[str, Any]] = deque()
        self._stopped: set[int] = set()
        self._end: str | None = None
        self._voices: Voices | None = None
        self._answered = 0

    def run(self) -> dict[str, Any]:
        """Returns {turns, ended: idle, asked, room or interrupted}. Raises: ModelLoadError, JobCancelled."""
        set_threads()
        idle_since = time.monotonic()
        while not self._is_over(time.monotonic() - idle_since):
            if not self._waiting:
                time.sleep(POLL_SECONDS)
                continue
            self._answer(self._waiting.popleft())
            self._context.spool.phase("idle")
            idle_since = time.monotonic()
        return {"turns": self._answered, "ended": self._end}

    def _is_over(self, idle_seconds: float) -> bool:
        """Also takes in what has been asked of it. Raises: JobCancelled."""
        self._read_requests()
        request = self._context.stop_request
        if request is StopRequest.CANCEL or (request is StopRequest.INTERRUPT and self._waiting):
            raise JobCancelled()
        if request is not None:
            self._end = self._end or ("asked" if request is StopRequest.SAVE else "interrupted")
        if self._end is None and idle_seconds > self._context.payload["idle_seconds"]:
            self._end = "idle"
        return self._end is not None and not self._waiting

    def _read_requests(self) -> None:
        for request in self._inbox.poll():
            if "turn" in request:
                self._waiting.append(request["turn"])
            if "stop" in request:
                self._stopped.add(request["stop"])
            self._end = request.get("end", self._end)

    def _answer(self, turn: dict[str, Any]) -> None:
        for side, messages in turn["messages"].items():
            told = {"turn": turn["id"], "side": side}
            began = time.monotonic()
            try:
                answer = self._ask(turn, side, messages)
                told |= {"text": answer.text, "tokens": answer.tokens, "stop_reason": answer.stop_reason}
                told["seconds"] = round(time.monotonic() - began, 3)
            except InvalidInput as error:  # this question cannot be answered; the next one may
                fault = error.faults[0]
                logger.warning("question %s cannot be answered: %s", turn["id"], error.message)
                told["error"] = {"kind": error.code, **fault.to_json()}
            self._context.spool.write("answer", told)
        self._answered += 1

    def _ask(self, turn: dict[str, Any], side: str, messages: list[dict[str, str]]) -> Generation:
        """Raises: InvalidInput, ModelLoadError, JobCancelled."""
        if turn["id"] in self._stopped:
            return Generation("", 0, "cancelled")
        spool, sampling = self._context.spool, parse_sampling(turn["sampling"])
        if self._voices is None:
            spool.phase("load")
            self._voices = Voices(self._context.payload)
        with self._voices.speaking(side, lambda: spool.phase("load")) as model:
            spool.phase("generate")
            tokenizer = self._voices.tokenizer
            pieces = Pieces(spool, tokenizer, {"turn": turn["id"], "side": side})

            def on_tokens(ids: torch.Tensor) -> bool:
                pieces.tell(ids)
                self._read_requests()
                return turn["id"] in self._stopped or self._is_to_leave

            if self._context.payload["spec"].get("task") == "text":
                answer = continue_text(model, tokenizer, messages[-1]["content"], sampling, on_tokens)
            else:
                answer = generate(model, tokenizer, with_system(turn["system"], messages), sampling, on_tokens)
        if self._is_to_leave:
            raise JobCancelled()
        return answer

    @property
    def _is_to_leave(self) -> bool:
        return self._context.stop_request in (StopRequest.CANCEL, StopRequest.INTERRUPT)


class Pieces:
    """Tells what is new of an answer, the first token at once and then a few at a time.

    `at` is how many characters of what was told before still hold: a word's end may spell it otherwise.
    """

    def __init__(self, spool: SpoolWriter, tokenizer: Any, of: dict[str, Any]) -> None:
        self._spool, self._tokenizer, self._of = spool, tokenizer, of
        self._told = ""
        self._told_at = float("-inf")

    def tell(self, ids: torch.Tensor) -> None:
        """`ids` are the answer's so far, (tokens,)."""
        if time.monotonic() - self._told_at < PIECE_SECONDS:
            return
        text = self._tokenizer.decode(ids.tolist(), skip_special_tokens=True).lstrip()
        text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # of a character that is not whole yet
        if text == self._told:
            return
        at = _count_alike(self._told, text)
        self._spool.write("piece", {**self._of, "at": at, "text": text[at:], "tokens": len(ids)})
        self._told, self._told_at = text, time.monotonic()


def _count_alike(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    return next(place for place, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])
