"""Answers to a few prompts of the eval rows, base beside tuned, so that a person sees what was learned."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from app.core.errors import InvalidInput
from worker.context import JobContext
from worker.inference.generate import Sampling, generate
from worker.training.callback import check_cancelled
from worker.training.reading import Messages

logger = logging.getLogger(__name__)

MAX_PROMPTS = 2
_MAX_PROMPT_CHARACTERS = 2000
_SAMPLING = Sampling(max_new_tokens=48)


def choose_prompts(rows: Sequence[Messages]) -> list[Messages]:
    """The first turns, up to the first answer, of up to two rows; long ones are passed over, since they take long."""
    prompts = [_opening(messages) for messages in rows]
    short = [p for p in prompts if p and sum(len(turn["content"]) for turn in p) <= _MAX_PROMPT_CHARACTERS]
    return short[:MAX_PROMPTS]


def write_samples(
    context: JobContext,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Messages],
    step: int,
    which: Sequence[str] = ("base", "tuned"),
) -> None:
    """Greedy answers into the spool: of the tuned model, and of the base one.

    That is the model with the adapter switched off, or at step 0 the whole model as it starts.
    """
    model.eval()
    for messages in prompts:
        for name in which:
            check_cancelled(context)
            with model.disable_adapter() if name == "base" and step else nullcontext():
                text = _answer(context, model, tokenizer, messages)
            if text is not None:
                sample = {"prompt": messages[-1]["content"], "text": text, "model": name}
                context.spool.write("sample", sample, step=0 if name == "base" else step)


def _opening(messages: Messages) -> Messages:
    first_answer = next((i for i, turn in enumerate(messages) if turn["role"] == "assistant"), 0)
    opening = messages[:first_answer]
    return opening if opening and opening[-1]["role"] == "user" else []


def _answer(context: JobContext, model: Any, tokenizer: Any, messages: Messages) -> str | None:
    try:
        return generate(model, tokenizer, messages, _SAMPLING, lambda _tokens: context.stop_request is not None).text
    except InvalidInput as error:  # a prompt that fills the model's context says nothing about the training
        logger.warning("no sample for one prompt: %s", error.message)
        return None
