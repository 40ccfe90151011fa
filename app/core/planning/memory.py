"""Peak GPU memory of a training step, by component, in closed form: from sizes alone, in microseconds.

Each line was derived from what autograd keeps for the backward pass, and held against simulated steps of whole models
(tests/fixtures/vram_points.json). Weights and activations are in bfloat16 (2 bytes), the loss in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.core.planning.architecture import Architecture, Linear

# NF4 with double quantisation: 4 bits a weight, an 8-bit scale for each 64, a float32 scale for each 256 of those.
# Source: Dettmers et al., 2023, section 3.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_LOGIT_BYTES = 14  # bfloat16 logits, their float32 copy, log-probabilities and gradient
_TILE_LOGITS = 1 << 23
_TILE_LOGIT_BYTES = 6  # bfloat16 and float32 side by side
_ATTENTION_INPUTS = {"q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn"}
_MLP_INPUTS = {"gate_proj", "up_proj", "gate_up_proj", "c_fc"}


class Loss(StrEnum):
    """How the logits are held while the loss is computed."""

    WHOLE = "whole"  # of every position, at once
    TILED = "tiled"  # of labelled positions, in tiles of 4,096 positions by 32,768 words
    CHUNKED = "chunked"  # of labelled positions, in tiles of 2^23 logits: the engine's own


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: rows of `length` tokens, of which `labelled` in all have a label."""

    rows: int
    length: int
    labelled: int
    padded: bool  # a mask of (length, length) is kept for each row

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True, slots=True)
class LoraStep:
    """What decides the memory of a step of LoRA (weights in bfloat16) or QLoRA (in 4 bits)."""

    targets: tuple[Linear, ...]  # of one layer
    rank: int
    parameters: int  # trainable, in all layers
    parameter_bytes: int  # of each trainable parameter, and of its gradient
    optimizer_bytes: float  # of state for each trainable parameter
    dropout: bool
    checkpointing: bool
    quantised: bool
    loss: Loss

    @property
    def in_float32(self) -> bool:
        """Whether the adapter is in float32, computed with in bfloat16 under autocast."""
        return self.parameter_bytes == 4


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes that are allocated when most are."""

    weights: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    logits: int

    @property
    def allocated(self) -> int:
        """Their sum, as the allocator counts it, without the context of CUDA."""
        return self.weights + self.adapter + self.optimizer + self.gradients + self.activations + self.logits


def peak_of_lora(architecture: Architecture, batch: Batch, step: LoraStep) -> Peak:
    """The largest of three moments: the loss, the start of the backward pass, and its end with every gradient."""
    adapter = step.parameter_bytes * step.parameters
    kept, layer, working = _activations(architecture, batch, step)
    hidden = 2 * architecture.hidden * batch.tokens
    at_loss = kept + 2 * hidden
    if step.checkpointing:
        backward = [(0, kept + layer + working), (adapter, layer + working)]
    else:
        backward = [(0, kept + working)]
    logits = _logits(architecture, batch, step.loss)
    moments = [(0, at_loss, logits), *((gradients, activations, 0) for gradients, activations in backward)]
    gradients, activations, logits = max(moments, key=sum)
    return Peak(
        weights=_weights(architecture, quantised=step.quantised),
        adapter=adapter,
        optimizer=round(step.optimizer_bytes * step.parameters),
        gradients=gradients,
        activations=round(activations),
        logits=round(logits),
    )


def _weights(architecture: Architecture, *, quantised: bool) -> int:
    if not quantised:
        return 2 * architecture.parameters
    kept = architecture.parameters - architecture.linear_weights
    return round(NF4_BYTES * architecture.linear_weights) + 2 * kept


def _activations(architecture: Architecture, batch: Batch, step: LoraStep) -> tuple[float, float, float]:
    """Bytes kept from the forward pass, kept for one layer that is computed anew, and of passing temporaries."""
    layer = float(batch.tokens * _kept_per_token(architecture, batch, step))
    working = _working(architecture, batch, step)
    if step.checkpointing:
        return 2.0 * architecture.hidden * architecture.layers * batch.tokens, layer, working
    casts = 2 * step.parameters if step.in_float32 else 0  # the adapter in bfloat16, which autocast keeps
    return architecture.layers * layer + casts, layer, working


def _kept_per_token(architecture: Architecture, batch: Batch, step: LoraStep) -> int:
    """Bytes that one layer keeps for each token: norms, attention, gated MLP, and the inputs of its adapters."""
    hidden, inner = architecture.hidden, architecture.intermediate
    queries, keys = architecture.heads * architecture.head_dim, architecture.key_value_heads * architecture.head_dim
    attention = 4 * queries + 4 * architecture.heads + (4 * queries + 2 * batch.length if batch.padded else 4 * keys)
    return 8 * hidden + attention + 6 * inner + _adapter_inputs(architecture, step)


def _adapter_inputs(architecture: Architecture, step: LoraStep) -> int:
    """Each adapter keeps its input in bfloat16, a byte of dropout's mask with it, and its r inner features.

    A quantised model's adapters, themselves in bfloat16 and without dropout, share the input with their neighbours.
    """
    inner = 2 * step.rank * len(step.targets)
    if step.dropout or step.in_float32:
        return inner + sum((2 + step.dropout) * linear.inputs for linear in step.targets)
    names = {linear.name for linear in step.targets}
    shared = sum(2 * architecture.hidden for group in (_ATTENTION_INPUTS, _MLP_INPUTS) if names & group)
    return inner + shared + (2 * architecture.intermediate if "down_proj" in names else 0)


def _working(architecture: Architecture, batch: Batch, step: LoraStep) -> float:
    """What lives for a moment in the backward pass of one MLP; a quantised weight is unpacked for it."""
    hidden, inner = architecture.hidden, architecture.intermediate
    if step.quantised:
        largest = max(linear.weights for linear in architecture.linears)
        per_hidden = 8 if step.in_float32 else 2
        return batch.tokens * (4 * inner + per_hidden * hidden) + 2 * largest
    down = any(linear.inputs == inner for linear in step.targets)
    per_inner = 5 + down * (2 + 4 * step.dropout)  # down's adapter computes in float32, its dropout once more
    return batch.tokens * (per_inner * inner + 6 * hidden)


def _logits(architecture: Architecture, batch: Batch, loss: Loss) -> int:
    if loss is Loss.WHOLE:
        return _LOGIT_BYTES * batch.tokens * architecture.vocabulary
    if loss is Loss.CHUNKED:
        tile = min(batch.labelled * architecture.vocabulary, _TILE_LOGITS)
        return 4 * architecture.hidden * (batch.labelled + batch.tokens) + _TILE_LOGIT_BYTES * tile
    tile = min(batch.labelled, 4096) * min(architecture.vocabulary, 32768)
    return architecture.hidden * (6 * batch.labelled + 4 * batch.tokens) + 2 * tile
