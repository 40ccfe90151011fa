"""Answers to a few prompts of the eval rows, base beside tuned, so that a person sees what was learned."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import InvalidInput
from app.core.jobs.sampling import Sampling
from worker.context import JobContext
from worker.inference.generate import continue_text, generate
from worker.training.callback import check_cancelled
from worker.training.pairs import pair_of
from worker.training.reading import Messages, Object, messages_of, read_as, text_of

logger = logging.getLogger(__name__)

MAX_PROMPTS = 2
_MAX_PROMPT_CHARACTERS = 2000
_OPENING_TOKENS = 32
_SAMPLING = Sampling(max_new_tokens=48)

Prompt = Messages | str  # a conversation to answer, or the opening of a text to go on with


def choose_prompts(path: Path, held_out: Collection[int], tokenizer: Any, task: str) -> list[Prompt]:
    """Prompts of up to two of the dataset's rows `held_out`: first turns up to the first answer, or a text's opening.

    Long conversations are passed over, since they take long.
    """
    prompts = _text_openings(path, held_out, tokenizer) if task == "text" else _questions(path, held_out)
    return list(islice(prompts, MAX_PROMPTS))


def write_samples(
    context: JobContext,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    step: int,
    which: Sequence[str] = ("base", "tuned"),
) -> None:
    """Greedy answers into the spool: of the tuned model, and of the base one.

    That is the model with the adapter switched off, or at step 0 the whole model as it starts.
    """
    model.eval()
    for prompt in prompts:
        for name in which:
            check_cancelled(context)
            with model.disable_adapter() if name == "base" and step else nullcontext():
                text = _answer(context, model, tokenizer, prompt)
            if text is not None:
                shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
                sample = {"prompt": shown, "text": text, "model": name}
                context.spool.write("sample", sample, step=0 if name == "base" else step)


def _questions(path: Path, rows: Collection[int]) -> Iterator[Messages]:
    for prompt in read_as(path, _opening_of, rows):
        if prompt and sum(len(turn["content"]) for turn in prompt) <= _MAX_PROMPT_CHARACTERS:
            yield prompt


def _opening_of(row: Object) -> Messages:
    """The first turns up to the first answer, of a conversation or of a pair's prompt."""
    messages = messages_of(row) if "messages" in row else pair_of(row)[0]
    first_answer = next((i for i, turn in enumerate(messages) if turn["role"] == "assistant"), None)
    opening = messages[:first_answer]
    return opening if opening and opening[-1]["role"] == "user" else []


def _text_openings(path: Path, rows: Collection[int], tokenizer: Any) -> Iterator[str]:
    """The first tokens of each text, at most half of it, and no part of a character."""
    for text in read_as(path, text_of, rows):
        ids = tokenizer(text[:_MAX_PROMPT_CHARACTERS], add_special_tokens=False, verbose=False)["input_ids"]
        opening = tokenizer.decode(ids[: min(_OPENING_TOKENS, len(ids) // 2)]).rstrip("\N{REPLACEMENT CHARACTER}")
        if opening.strip():
            yield opening


def _answer(context: JobContext, model: Any, tokenizer: Any, prompt: Prompt) -> str | None:
    def stop(_ids: Any) -> bool:
        return context.stop_request is not None

    try:
        if isinstance(prompt, str):
            return continue_text(model, tokenizer, prompt, _SAMPLING, stop).text
        return generate(model, tokenizer, prompt, _SAMPLING, stop).text
    except InvalidInput as error:  # a prompt that fills the model's context says nothing about the training
        logger.warning("no sample for one prompt: %s", error.message)
        return None
