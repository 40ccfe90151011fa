"""Attention within each row of a flattened batch: rows lie end to end in one sequence, and none sees another."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from worker.training.proofs import proven
from worker.training.varlen import attend_varlen, varlen_suits

logger = logging.getLogger(__name__)

PER_ROW = "per_row_sdpa"  # known to transformers by this name; without a mask of that name it builds none
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # as a share of the largest logit
_LEAK_FACTOR = 4  # a leak must show at least so many times as clearly as rounding does
_PROOF_LENGTHS = (12, 9)
_NARROWING = ("sliding_window", "attention_chunk_size")  # in a model's configuration, in tokens
_BEYOND_ROWS = ("softcap", "s_aux", "position_bias")  # arguments that plain attention within a row has no place for


class CannotFlatten(Exception):
    """The model cannot compute its attention row by row; the text says why."""


def attend_per_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    row_lengths: Sequence[int] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of (1, heads, tokens, head_dim) within each row; returns (1, tokens, heads, head_dim).

    `row_lengths` add up to `tokens`. Raises: CannotFlatten where the model asks for anything else.
    """
    lengths = list(row_lengths or ())
    _check_request(module, attention_mask, kwargs)
    if sum(lengths) != query.shape[2] or query.shape[0] != 1:
        raise CannotFlatten("its layers are not told where the rows end")
    if sliding_window is not None and max(lengths) > sliding_window:
        raise CannotFlatten(f"it attends to {sliding_window} tokens only and a row has {max(lengths)}")
    query, key, value = _as_autocast((query, key, value))
    if varlen_suits(query, key, value, dropout):
        return attend_varlen(query, key, value, lengths, scaling), None
    parts = zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [
        sdpa_attention_forward(module, q, k, v, None, dropout=dropout, scaling=scaling, is_causal=True)[0]
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=1), None


def _as_autocast(operands: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The operands in autocast's type where it is on, as PyTorch's own attention takes them."""
    device = operands[0].device.type
    if not torch.is_autocast_enabled(device):
        return operands
    return tuple(operand.to(torch.get_autocast_dtype(device)) for operand in operands)


def _check_request(module: torch.nn.Module, attention_mask: Any, kwargs: dict[str, Any]) -> None:
    if attention_mask is not None:
        raise CannotFlatten("it makes an attention mask of its own")
    causal = kwargs.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise CannotFlatten("its attention is not causal")
    asked = [name for name in _BEYOND_ROWS if kwargs.get(name) is not None]
    if asked:
        raise CannotFlatten(f"its attention uses {', '.join(asked)}")


AttentionInterface.register(PER_ROW, attend_per_row)


@contextmanager
def attention_per_row(model: Any) -> Iterator[None]:
    """Let the model attend row by row inside the block, backward passes included; as before after it.

    Raises: CannotFlatten where the model's attention cannot be replaced.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    if before != "sdpa":
        raise CannotFlatten(f"it runs with {before} attention, not with sdpa")
    base.set_attn_implementation(PER_ROW)
    try:
        if base.config._attn_implementation != PER_ROW:
            raise CannotFlatten("its attention cannot be replaced")
        yield
    finally:
        base.set_attn_implementation(before)


@contextmanager
def attention_as_usual(model: Any) -> Iterator[None]:
    """Inside the block the model attends as its own code does, to one sequence with what is cached of it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if base.config._attn_implementation != PER_ROW:
        yield
        return
    base.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        base.set_attn_implementation(PER_ROW)


@dataclass(frozen=True, slots=True)
class Proof:
    """How flattened logits differ from each row's alone, as shares of the largest logit."""

    difference: float  # with the rows kept apart
    leak: float  # with the rows let into each other: what a failure would look like
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the rows were kept apart, and a leak would have been noticed."""
        return self.difference <= self.tolerance and self.leak > _LEAK_FACTOR * self.difference


def proves_isolation(model: Any, longest: int) -> bool:
    """Whether rows of up to `longest` tokens, flattened, get the logits each gets alone; the log says so, or why not.

    Two short rows are computed alone, flattened, and once more flattened but not kept apart.
    """
    fault = isolation_fault(model, longest)
    if fault:
        logger.warning("batches are padded: %s", fault)
    return fault is None


def isolation_fault(model: Any, longest: int) -> str | None:
    """Why rows of up to `longest` tokens cannot be flattened; None where they are proven apart, which is logged."""
    try:
        _check_span(model.config, longest)
        proof = Proof(*proven("rows kept apart", lambda: astuple(measure_isolation(model))))
    except (CannotFlatten, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return f"the model's rows cannot be flattened ({error})"
    figures = (proof.difference, proof.tolerance, proof.leak)
    if not proof.holds:
        return "rows could not be proven apart ({:.1e} of {:.1e}, a leak {:.1e})".format(*figures)
    logger.info("batches are flattened: rows proven apart (%.1e of %.1e, a leak would be %.1e)", *figures)
    return None


def _check_span(config: Any, longest: int) -> None:
    """A window at least as long as every row changes nothing; a shorter one would be lost."""
    text = config.get_text_config()
    for name in _NARROWING:
        span = getattr(text, name, None)
        if span is not None and getattr(text, "use_sliding_window", True) and span < longest:
            raise CannotFlatten(f"{name} = {span} is less than the longest row, {longest} tokens")


def measure_isolation(model: Any) -> Proof:
    """Compare the last logits of two rows of arbitrary tokens, flattened and alone. Raises: CannotFlatten."""
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(sum(_PROOF_LENGTHS), device=device) * 37 + 11) % vocabulary
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            alone = _logits_alone(model, ids)
            with attention_per_row(model):
                apart = _last_logits(model, ids, _PROOF_LENGTHS)
                mixed = _last_logits(model, ids, (len(ids),))
    finally:
        model.train(training)
    scale = float(alone.abs().max())
    difference, leak = (float((each - alone).abs().max()) / scale for each in (apart, mixed))
    return Proof(difference, leak, _TOLERANCE.get(alone.dtype, 1e-4))


def _logits_alone(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits at the end of each row, (rows, vocabulary), side by side in one batch, padded on the right."""
    batch = torch.nn.utils.rnn.pad_sequence(list(_rows_of(ids)), batch_first=True)
    logits = model(input_ids=batch, use_cache=False).logits
    return torch.stack([row[length - 1] for row, length in zip(logits, _PROOF_LENGTHS, strict=True)])


def _rows_of(tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows: tuple[torch.Tensor, ...] = torch.split(tokens, list(_PROOF_LENGTHS))
    return rows


def _last_logits(model: Any, ids: torch.Tensor, row_lengths: tuple[int, ...]) -> torch.Tensor:
    """Logits at the end of each of the proof's rows, (rows, vocabulary), with attention split at `row_lengths`."""
    positions = torch.cat([torch.arange(length, device=ids.device) for length in _PROOF_LENGTHS])
    logits = model(input_ids=ids[None], position_ids=positions[None], row_lengths=row_lengths, use_cache=False).logits[
        0
    ]
    return torch.cat([row[-1:] for row in _rows_of(logits)])
