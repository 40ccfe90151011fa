"""What two models say on the same prompts, and how far apart it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

PROMPTS = ("What is the capital of France?", "Write one sentence about the sea.", "Add 17 and 25.")
_NEW_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Reference:
    """What a model says. Per prompt: token ids (1, seq), fp32 logits (seq, vocabulary) on the CPU; new tokens."""

    input_ids: list[torch.Tensor]
    logits: list[torch.Tensor]
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two models are apart on the same tokens. Differences are of logits; relative ones of their spread."""

    max_logit_difference: float
    mean_logit_difference: float
    relative_difference: float
    greedy_tokens_equal: bool
    compared_tokens: int
    vocabulary_size: int


def measure_reference(model: Any, tokenizer: Any, new_tokens: int = _NEW_TOKENS) -> Reference:
    """Let the model continue a few prompts greedily and keep all its logits."""
    ids = [_continue(model, encode_prompt(tokenizer, prompt), new_tokens) for prompt in PROMPTS]
    return Reference(ids, [logits_of(model, each) for each in ids], new_tokens)


@torch.inference_mode()
def logits_of(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """Of each position, (seq, vocabulary), in fp32 on the CPU; `input_ids` are (1, seq)."""
    logits: torch.Tensor = model(input_ids=input_ids.to(model.device), use_cache=False).logits[0].float().cpu()
    return logits


def compare(reference: Reference, other: Reference) -> Comparison:
    """How far two models' logits on the same tokens are apart.

    Where the likeliest token is the same at each generated position, greedy decoding gives the same text; where it is
    not, the two candidates were within twice the largest difference of each other.
    """
    was, now = torch.cat(reference.logits), torch.cat(other.logits)
    tails = zip(reference.logits, other.logits, strict=True)
    equal = [_choices(a, reference.new_tokens).equal(_choices(b, reference.new_tokens)) for a, b in tails]
    difference = was - now
    return Comparison(
        max_logit_difference=float(difference.abs().max()),
        mean_logit_difference=float(difference.abs().mean()),
        relative_difference=float(difference.square().mean().sqrt() / was.std(dim=1).mean()),
        greedy_tokens_equal=all(equal),
        compared_tokens=len(was),
        vocabulary_size=was.shape[1],
    )


def encode_prompt(tokenizer: Any, prompt: str) -> torch.Tensor:
    """Token ids (1, seq) of a one-turn chat, or of the plain text where there is no chat template."""
    if tokenizer.chat_template is None:
        plain: torch.Tensor = tokenizer(prompt, return_tensors="pt")["input_ids"]
        return plain
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    return ids


@torch.inference_mode()
def _continue(model: Any, input_ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Append the likeliest token so many times; an end of sequence does not end it."""
    for _ in range(new_tokens):
        logits = logits_of(model, input_ids)
        input_ids = torch.cat([input_ids, logits[-1:].argmax(-1, keepdim=True)], dim=1)
    return input_ids


def _choices(logits: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """The likeliest tokens at the positions that predicted the generated ones."""
    return logits[-new_tokens - 1 : -1].argmax(-1)
