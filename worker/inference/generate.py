"""Answers of a base model, or of a base model with an adapter, to one conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from app.core.errors import InvalidInput
from app.core.jobs.sampling import FIELDS, Sampling, parse_sampling
from worker.context import JobContext
from worker.inference.prompts import encode_conversation, encode_opening, end_token_ids, room_behind
from worker.inference.prompts import stop_token_ids as stop_token_ids
from worker.training.adapters import load_adapter
from worker.training.model import Hardware, choose_hardware, set_threads
from worker.training.preload import base_model_of, tokenizer_of
from worker.training.quantization import Quantization, find_quantization
from worker.training.reading import Messages

StopReason = Literal["eos", "length", "cancelled"]
OnTokens = Callable[[torch.Tensor], bool]  # told the answer's ids so far, (tokens,); True ends it there


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer. tokens counts what was generated, the end-of-turn token included; the text leaves it out."""

    text: str
    tokens: int
    stop_reason: StopReason


def run_generate(context: JobContext) -> dict[str, Any]:
    """Answer the payload's prompt, or go on with it where its spec's `task` is text: {text, tokens, stop_reason}.

    Payload: base_model {path}, adapter_path (or null), spec (of the training: a base that was trained quantised answers
    quantised, with its adapter or without), prompt or messages, system (or none), and the fields of `Sampling`.
    A stop request ends the answer where it is. Raises: InvalidInput, ModelLoadError.
    """
    payload = context.payload
    sampling = parse_sampling({name: payload[name] for name in FIELDS if name in payload})
    messages = _messages(payload)
    context.spool.phase("load")
    set_threads()
    tokenizer = tokenizer_of(payload["base_model"]["path"])
    spec = payload.get("spec", {})
    model = load_model(payload["base_model"]["path"], payload.get("adapter_path"), find_quantization(spec))
    context.spool.phase("generate")

    def on_tokens(ids: torch.Tensor) -> bool:
        context.spool.progress(len(ids), sampling.max_new_tokens)
        return context.stop_request is not None

    if spec.get("task") == "text":
        return asdict(continue_text(model, tokenizer, messages[-1]["content"], sampling, on_tokens))
    return asdict(generate(model, tokenizer, messages, sampling, on_tokens))


def load_model(
    base_path: str, adapter_path: str | None, quantization: Quantization | None = None, hardware: Hardware | None = None
) -> Any:
    """The base model, with the adapter if one is given, ready to generate. Raises: ModelLoadError."""
    model = base_model_of(base_path, hardware or choose_hardware("auto"), quantization)
    if adapter_path is not None:
        model = load_adapter(model, adapter_path)
    model.config.use_cache = True
    return model.eval()


def generate(model: Any, tokenizer: Any, messages: Messages, sampling: Sampling, on_tokens: OnTokens) -> Generation:
    """Answer a conversation by the model's chat template.

    Raises: InvalidInput where the conversation fills the model's context, or the template refuses it.
    """
    ids = encode_conversation(tokenizer, messages)
    return _go_on(model, tokenizer, ids, stop_token_ids(model, tokenizer), sampling, on_tokens)


def continue_text(model: Any, tokenizer: Any, text: str, sampling: Sampling, on_tokens: OnTokens) -> Generation:
    """Go on where the text ends, without a chat template; else as `generate`. Raises: InvalidInput."""
    ids = encode_opening(tokenizer, text)
    return _go_on(model, tokenizer, ids, end_token_ids(model, tokenizer), sampling, on_tokens)


def _go_on(
    model: Any, tokenizer: Any, ids: torch.Tensor, stop_ids: list[int], sampling: Sampling, on_tokens: OnTokens
) -> Generation:
    """`ids` are (1, seq)."""
    prompt = ids.to(model.device)
    room = room_behind(model, prompt)
    stopping = _StopWhen(prompt.shape[1], on_tokens)
    if sampling.temperature > 0:
        torch.manual_seed(sampling.seed) if sampling.seed is not None else torch.seed()
    with torch.inference_mode():
        output = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(sampling.max_new_tokens, room),
            eos_token_id=stop_ids or None,
            pad_token_id=stop_ids[0] if stop_ids else 0,  # nothing is padded: there is one answer
            stopping_criteria=StoppingCriteriaList([stopping]),
            **_choice(sampling),
        )
    new = output[0, prompt.shape[1] :].tolist()
    return Generation(text_of(tokenizer, new), len(new), _stop_reason(new, stop_ids, cancelled=stopping.asked))


class _StopWhen(StoppingCriteria):
    """Reports each new token and stops where that asks for it."""

    def __init__(self, prompt_tokens: int, on_tokens: OnTokens) -> None:
        self._prompt_tokens = prompt_tokens
        self._on_tokens = on_tokens
        self.asked = False

    def __call__(self, input_ids: Any, _scores: Any, **_kwargs: Any) -> Any:
        self.asked = self._on_tokens(input_ids[0, self._prompt_tokens :])
        return torch.full((input_ids.shape[0],), self.asked, device=input_ids.device)


def _messages(payload: dict[str, Any]) -> Messages:
    messages: Messages = payload.get("messages") or [{"role": "user", "content": payload.get("prompt") or ""}]
    if not messages[-1]["content"].strip():
        raise InvalidInput("is empty", field="prompt")
    return with_system(payload.get("system") or "", messages)


def with_system(system: str, messages: Messages) -> Messages:
    """The conversation behind a system prompt, if there is one."""
    return [{"role": "system", "content": system}, *messages] if system.strip() else messages


def _choice(sampling: Sampling) -> dict[str, Any]:
    """What `generate` takes; what the model's own configuration would narrow the choice to beside it is off."""
    if sampling.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The answer that these tokens spell."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def _stop_reason(new: list[int], stop_ids: list[int], *, cancelled: bool) -> StopReason:
    if new and new[-1] in stop_ids:
        return "eos"
    return "cancelled" if cancelled else "length"
