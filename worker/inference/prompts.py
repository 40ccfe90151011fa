"""From a conversation or a text to token ids, and which tokens end an answer."""

from __future__ import annotations

import logging
from typing import Any

import torch

from app.core.errors import InvalidInput
from worker.training.data import IGNORED_LABEL, TemplateMismatch, encode_row, ensure_chat_template, special_ids
from worker.training.reading import Messages
from worker.training.rendering import render

logger = logging.getLogger(__name__)

_PROBE: Messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def encode_conversation(tokenizer: Any, messages: Messages) -> torch.Tensor:
    """Token ids (1, seq) up to where the answer starts. Raises: InvalidInput where the template refuses."""
    ensure_chat_template(tokenizer)
    try:
        text = render(tokenizer, messages, prompt=True)
    except TemplateMismatch as error:
        field = "system" if messages[0]["role"] == "system" else "prompt"
        raise InvalidInput(f"the model's chat template refuses it: {error.__cause__}", field=field) from None
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False)["input_ids"]
    return _with_one_beginning(tokenizer, ids)


def encode_opening(tokenizer: Any, text: str) -> torch.Tensor:
    """Token ids (1, seq) of a text to go on with."""
    ids = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    ids = ids[:, :-1] if ids[0, -1] == tokenizer.eos_token_id else ids  # as tokenizers add that are asked to
    return _with_one_beginning(tokenizer, ids)


def _with_one_beginning(tokenizer: Any, ids: torch.Tensor) -> torch.Tensor:
    """Whoever spells the begin-of-sequence token gets it once, as rows do in training."""
    begin = tokenizer.bos_token_id
    while begin is not None and ids.shape[1] > 1 and ids[0, 0] == ids[0, 1] == begin:
        ids = ids[:, 1:]
    return ids


def room_behind(model: Any, ids: torch.Tensor) -> int:
    """Tokens that still fit behind the prompt. Raises: InvalidInput."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    if ids.shape[1] >= limit:
        message = f"has {ids.shape[1]:,} tokens with all that stands before it; the model takes {limit:,}"
        raise InvalidInput(message, field="prompt")
    return int(limit) - ids.shape[1]


def stop_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the model's and the tokenizer's own, and the one that training learns."""
    ids = {*end_token_ids(model, tokenizer), _end_of_turn(tokenizer)}
    return sorted(i for i in ids if i is not None)


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a text."""
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
