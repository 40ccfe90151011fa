"""From the last layer to the loss: final norm, head, and the logits as the engine's scorings hold them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from app.core.planning.architecture import Architecture
from app.core.planning.modules import FP32, Modules
from app.core.planning.tape import Tape, Tensor, weight

_TILE = 1 << 23  # logits: worker.training.linear_loss.TILE_ELEMENTS
_CHUNK_ROWS = 256  # worker.training.losses.CHUNK_ROWS


class Loss(StrEnum):
    """How the logits are held while the loss is computed."""

    CHUNKED = "chunked"  # of labelled positions, some of them at a time: the engine's own
    AT_LABELS = "at_labels"  # of labelled positions, at once
    WHOLE = "whole"  # of every position, at once
    PLAIN = "plain"  # of every position, and held to the step's end: transformers' own loss under TRL
    TILED = "tiled"  # of labelled positions, in tiles of 4,096 positions by 32,768 words


@dataclass(frozen=True, slots=True)
class Scored:
    """What the loss takes: bytes that wait for its backward pass, and at the peaks of both passes."""

    kept: float
    forward: float
    backward: float
    logits: float  # of the larger of the two peaks, what is there for the logits' sake


def choose_loss(architecture: Architecture, whole: Collection[str]) -> Loss:
    """As `worker.training.losses.choose_scoring` does; `whole` are the modules that are trained as copies."""
    return Loss.AT_LABELS if architecture.soft_cap or "lm_head" in whole else Loss.CHUNKED


def score(
    modules: Modules, architecture: Architecture, x: Tensor, loss: Loss, labelled: int, *, head_learns: bool
) -> Scored:
    """`x` is the residual stream behind the last layer."""
    tape = modules.tape
    gemma = architecture.model_type.startswith("gemma")
    hidden = modules.layer_norm(x) if architecture.model_type == "gpt2" else modules.rms_norm(x, of_product=gemma)
    before = tape.kept
    head = weight(architecture.vocabulary * architecture.hidden, modules.learning.base_width, learns=head_learns)
    if loss is Loss.TILED:
        return _tiled(tape, architecture, labelled, modules.tokens)
    if loss is Loss.CHUNKED:
        end = _chunked(modules, architecture, _selected(tape, hidden, labelled, architecture.hidden), head, labelled)
    else:
        end = _whole(modules, architecture, hidden, head, loss, labelled)
    held = modules.learning.compute * modules.tokens * architecture.vocabulary if loss is Loss.PLAIN else 0
    forward, backward = tape.forward_peak + held, tape.backward(end) + held
    return Scored(tape.kept, forward, backward, max(forward, backward) - before)


def _tiled(tape: Tape, architecture: Architecture, labelled: int, tokens: int) -> Scored:
    tile = 2 * min(labelled, 4096) * min(architecture.vocabulary, 32768)
    extra = architecture.hidden * (6 * labelled + 4 * tokens) + tile
    return Scored(tape.kept, tape.kept + extra, tape.kept + extra, extra)


def _selected(tape: Tape, x: Tensor, labelled: int, features: int) -> Tensor:
    return tape.apply([x], labelled * features, x.width, saves=[8.0 * x.elements / features])


def _chunked(modules: Modules, architecture: Architecture, hidden: Tensor, head: Tensor, labelled: int) -> Tensor:
    tape, width, vocabulary = modules.tape, modules.learning.compute, architecture.vocabulary
    if width == FP32:
        return _chunked_by_torch(tape, hidden, head, labelled, vocabulary)
    hidden = modules.cast(hidden, FP32)  # accelerate returns a model's outputs in float32
    tile = float(min(labelled, max(1, _TILE // vocabulary)) * vocabulary)
    copy = width * head.elements if head.width != width else 0.0
    slopes = (width + FP32) * tile
    by_weight = width * (tile + head.elements) if head.learns else 0.0
    return tape.apply(
        [hidden, head], labelled, FP32, saves=[hidden, 12.0 * labelled],
        forward_temporary=copy + slopes, temporary=copy + max(slopes, by_weight),
    )  # fmt: skip


def _chunked_by_torch(tape: Tape, hidden: Tensor, head: Tensor, labelled: int, vocabulary: int) -> Tensor:
    """torch.nn.functional.linear_cross_entropy takes the gradients in the forward pass, a chunk of rows at a time."""
    if labelled <= _CHUNK_ROWS:
        logits = tape.apply([hidden, head], labelled * vocabulary, FP32, saves=[hidden] if head.learns else [])
        return _cross_entropy(tape, logits, labelled)
    chunk = float(FP32 * _CHUNK_ROWS * vocabulary)
    saves = [hidden.size, float(head.size) if head.learns else 0.0]
    return tape.apply([hidden, head], 1, FP32, saves=saves, forward_temporary=chunk)


def _cross_entropy(tape: Tape, logits: Tensor, rows: int) -> Tensor:
    normalised = tape.apply([logits], logits.elements, FP32, keeps_output=True)
    return tape.apply([normalised], rows, FP32, saves=[8.0 * rows])


def _whole(
    modules: Modules, architecture: Architecture, hidden: Tensor, head: Tensor, loss: Loss, labelled: int
) -> Tensor:
    tape, vocabulary = modules.tape, architecture.vocabulary
    rows = labelled if loss is Loss.AT_LABELS else modules.tokens
    if loss is Loss.AT_LABELS:
        hidden = _selected(tape, hidden, labelled, architecture.hidden)
    logits = modules.product(hidden, head, vocabulary, rows)
    if architecture.soft_cap:
        capped = modules.change(logits)
        logits = modules.change(tape.apply([capped], capped.elements, capped.width, keeps_output=True))
    logits = modules.cast(logits, FP32)
    if loss is Loss.WHOLE:
        logits = _selected(tape, logits, labelled, vocabulary)
        rows = labelled
    return _cross_entropy(tape, logits, rows)
