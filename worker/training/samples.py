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
from app.core.jobs.spec import TrainingSpec
from worker.context import JobContext, StopRequest
from worker.inference.generate import continue_text, generate
from worker.training.attention import attention_as_usual
from worker.training.callback import check_cancelled
from worker.training.pairs import pair_of
from worker.training.reading import Messages, Object, messages_of, read_as, text_of

logger = logging.getLogger(__name__)

MAX_PROMPTS = 2  # of the eval rows
_MAX_PROMPT_CHARACTERS = 2000
_OPENING_TOKENS = 32

Prompt = Messages | str  # a conversation to answer, or the opening of a text to go on with


def choose_prompts(path: Path, held_out: Collection[int], tokenizer: Any, spec: TrainingSpec) -> list[Prompt]:
    """The spec's own sample prompts; else those of up to two of the dataset's rows `held_out`: first turns up to the
    first answer, or a text's opening. Long conversations are passed over, since they take long.
    """
    task = spec.task
    if not spec.sample_max_new_tokens:
        return []
    if spec.sample_prompts:
        return [text if task == "text" else [{"role": "user", "content": text}] for text in spec.sample_prompts]
    prompts = _text_openings(path, held_out, tokenizer) if task == "text" else _questions(path, held_out)
    return list(islice(prompts, MAX_PROMPTS))


def write_samples(
    context: JobContext,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    step: int,
    which: Sequence[str] = ("base", "tuned"),
    max_new_tokens: int = 48,
) -> None:
    """Greedy answers into the spool: of the tuned model, and of the base one. The model trains on as before.

    The base is the model with the adapter switched off, or at step 0 the whole model as it starts.
    """
    training = model.training
    model.eval()
    try:
        with attention_as_usual(model):
            for prompt in prompts:
                for name in which:
                    check_cancelled(context)
                    with model.disable_adapter() if name == "base" and step else nullcontext():
                        text = _answer(context, model, tokenizer, prompt, max_new_tokens)
                    _tell(context, prompt, text, name, 0 if name == "base" else step)
    finally:
        model.train(training)


def _tell(context: JobContext, prompt: Prompt, text: str | None, name: str, step: int) -> None:
    """Nothing of an answer that was broken off: the run that goes on gives it whole."""
    if text is None or context.stop_request in (StopRequest.CANCEL, StopRequest.INTERRUPT):
        return
    shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    context.spool.write("sample", {"prompt": shown, "text": text, "model": name}, step=step)


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


def _answer(context: JobContext, model: Any, tokenizer: Any, prompt: Prompt, max_new_tokens: int) -> str | None:
    sampling = Sampling(max_new_tokens=max_new_tokens)

    def stop(_ids: Any) -> bool:
        return context.stop_request is not None

    try:
        if isinstance(prompt, str):
            return continue_text(model, tokenizer, prompt, sampling, stop).text
        return generate(model, tokenizer, prompt, sampling, stop).text
    except InvalidInput as error:  # a prompt that fills the model's context says nothing about the training
        logger.warning("no sample for one prompt: %s", error.message)
        return None
