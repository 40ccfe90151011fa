"""Answers of a base model, or of a base model with an adapter, to one conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from app.core.errors import InvalidInput
from worker.context import JobContext
from worker.training.adapters import load_adapter
from worker.training.data import (
    IGNORED_LABEL,
    TemplateMismatch,
    encode_row,
    ensure_chat_template,
    special_ids,
)
from worker.training.model import choose_hardware, set_threads
from worker.training.preload import base_model_of, tokenizer_of
from worker.training.quantization import Quantization, find_quantization
from worker.training.reading import Messages

logger = logging.getLogger(__name__)

StopReason = Literal["eos", "length", "cancelled"]
_PROBE: Messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer. tokens counts what was generated, the end-of-turn token included; the text leaves it out."""

    text: str
    tokens: int
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens: temperature 0 always takes the likeliest one; no seed draws anew each time."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InvalidInput(f"must be at least 1 (got {self.max_new_tokens})", field="max_new_tokens")
        if self.temperature < 0:
            raise InvalidInput(f"must not be negative (got {self.temperature})", field="temperature")


def run_generate(context: JobContext) -> dict[str, Any]:
    """Answer the payload's prompt, or go on with it where its spec's `task` is text: {text, tokens, stop_reason}.

    Payload: base_model {path}, adapter_path (or null), spec (of the training: a base that was trained quantised answers
    quantised, with its adapter or without), prompt or messages, max_new_tokens, temperature and, if the answer must
    come out the same again, seed. A stop request ends the answer where it is.
    Raises: InvalidInput, ModelLoadError.
    """
    payload = context.payload
    sampling = Sampling(payload["max_new_tokens"], payload.get("temperature", 0.0), payload.get("seed"))
    messages = _messages(payload)
    context.spool.phase("load")
    set_threads()
    tokenizer = tokenizer_of(payload["base_model"]["path"])
    spec = payload.get("spec", {})
    model = load_model(payload["base_model"]["path"], payload.get("adapter_path"), find_quantization(spec))
    context.spool.phase("generate")

    def on_token(tokens: int) -> bool:
        context.spool.progress(tokens, sampling.max_new_tokens)
        return context.stop_request is not None

    if spec.get("task") == "text":
        return asdict(continue_text(model, tokenizer, messages[-1]["content"], sampling, on_token))
    return asdict(generate(model, tokenizer, messages, sampling, on_token))


def load_model(base_path: str, adapter_path: str | None, quantization: Quantization | None = None) -> Any:
    """The base model, with the adapter if one is given, ready to generate. Raises: ModelLoadError."""
    model = base_model_of(base_path, choose_hardware("auto"), quantization)
    if adapter_path is not None:
        model = load_adapter(model, adapter_path)
    model.config.use_cache = True
    return model.eval()


def generate(
    model: Any, tokenizer: Any, messages: Messages, sampling: Sampling, on_token: Callable[[int], bool]
) -> Generation:
    """Answer a conversation by the model's chat template.

    `on_token` gets the number of tokens after each one; where it returns True, the answer ends there.
    Raises: InvalidInput where the conversation fills the model's context.
    """
    ensure_chat_template(tokenizer)
    ids = _encode_prompt(tokenizer, messages)
    return _go_on(model, tokenizer, ids, stop_token_ids(model, tokenizer), sampling, on_token)


def continue_text(
    model: Any, tokenizer: Any, text: str, sampling: Sampling, on_token: Callable[[int], bool]
) -> Generation:
    """Go on where the text ends, without a chat template; else as `generate`. Raises: InvalidInput."""
    ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    ids = ids[:, :-1] if ids[0, -1] == tokenizer.eos_token_id else ids  # as tokenizers add that are asked to
    return _go_on(model, tokenizer, ids, _end_ids(model, tokenizer), sampling, on_token)


def _go_on(
    model: Any, tokenizer: Any, ids: Any, stop_ids: list[int], sampling: Sampling, on_token: Callable[[int], bool]
) -> Generation:
    """`ids` are (1, seq)."""
    prompt = ids.to(model.device)
    stopping = _StopWhen(prompt.shape[1], on_token)
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed) if sampling.seed is not None else torch.seed()
    with torch.inference_mode():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(sampling.max_new_tokens, _room(model, prompt.shape[1])),
            eos_token_id=stop_ids or None,
            pad_token_id=stop_ids[0] if stop_ids else 0,  # nothing is padded: there is one answer
            stopping_criteria=StoppingCriteriaList([stopping]),
            **_choice(sampling),
        )
    new = output[0, prompt.shape[1] :].tolist()
    return Generation(_text(tokenizer, new), len(new), _stop_reason(new, stop_ids, cancelled=stopping.asked))


def stop_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the model's and the tokenizer's own, and the one that training learns."""
    ids = {*_end_ids(model, tokenizer), _end_of_turn(tokenizer)}
    return sorted(i for i in ids if i is not None)


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    configured = model.generation_config.eos_token_id
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    return sorted(i for i in ids if i is not None)


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token with which the chat template ends an answer, if it does."""
    try:
        learned = [label for label in encode_row(tokenizer, _PROBE, 1 << 20).labels if label != IGNORED_LABEL]
    except TemplateMismatch as error:
        logger.warning("the end of a turn cannot be told from the chat template: %s", error)
        return None
    return learned[-1] if learned and learned[-1] in special_ids(tokenizer) else None


class _StopWhen(StoppingCriteria):
    """Reports each new token and stops where that asks for it."""

    def __init__(self, prompt_tokens: int, on_token: Callable[[int], bool]) -> None:
        self._prompt_tokens = prompt_tokens
        self._on_token = on_token
        self.asked = False

    def __call__(self, input_ids: Any, _scores: Any, **_kwargs: Any) -> Any:
        self.asked = self._on_token(input_ids.shape[1] - self._prompt_tokens)
        return torch.full((input_ids.shape[0],), self.asked, device=input_ids.device)


def _messages(payload: dict[str, Any]) -> Messages:
    messages: Messages = payload.get("messages") or [{"role": "user", "content": payload.get("prompt") or ""}]
    if not messages[-1]["content"].strip():
        raise InvalidInput("is empty", field="prompt")
    return messages


def _encode_prompt(tokenizer: Any, messages: Messages) -> torch.Tensor:
    """Token ids (1, seq) up to where the answer starts."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


def _room(model: Any, prompt_tokens: int) -> int:
    """Tokens that still fit behind the prompt. Raises: InvalidInput."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    if prompt_tokens >= limit:
        raise InvalidInput(f"has {prompt_tokens} tokens; the model takes {limit}", field="prompt")
    return int(limit) - prompt_tokens


def _choice(sampling: Sampling) -> dict[str, Any]:
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature}


def _text(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def _stop_reason(new: list[int], stop_ids: list[int], *, cancelled: bool) -> StopReason:
    if new and new[-1] in stop_ids:
        return "eos"
    return "cancelled" if cancelled else "length"
