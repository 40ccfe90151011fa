"""When a step takes the most: the moments of forward pass, loss, backward pass and optimizer that could be it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.core.planning.architecture import Architecture
from app.core.planning.layers import write_layer
from app.core.planning.logits import Scored, score
from app.core.planning.modules import Modules
from app.core.planning.step import Step
from app.core.planning.tape import Tape


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes beside weights, adapter and the optimizer's state."""

    gradients: float
    activations: float
    logits: float = 0.0

    @property
    def total(self) -> float:
        return self.gradients + self.activations + self.logits


@dataclass(frozen=True, slots=True)
class _Layer:
    """Bytes of one layer: of its input, what it keeps for its backward pass, and the peaks of both passes.

    `width` is that of an element of its input, `clings` what it keeps from its first forward pass on although it is
    computed anew.
    """

    width: int
    input: float
    kept: float
    clings: float
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Bytes of one layer's, the head's, and what the embeddings' backward pass adds; `every` is all that stay."""

    layer: float
    head: float
    embeddings: float
    every: float


def find_largest(architecture: Architecture, step: Step, optimizer_temporary: float) -> Moment:
    """Between the first and the last layer memory changes by as much with each, so the most is at one of the ends."""
    gradients = _gradients(architecture, step)
    layer = _layer(architecture, step, step.learning.base_width)
    scored = _scored(architecture, step, layer.width)
    moments = [*_moments(architecture, step, layer, scored, gradients), Moment(gradients.every, optimizer_temporary)]
    return max(moments, key=lambda moment: moment.total)


def _gradients(architecture: Architecture, step: Step) -> _Gradients:
    words = float(step.learning.base_width * architecture.vocabulary * architecture.hidden)
    every, head = float(step.learned_bytes), words * step.head_learns
    tied = step.learning.base and not architecture.head_parameters
    embeddings = words * step.embeddings_learn * (1 + tied)  # beside the head's, and then the sum of the two
    layer = (every - head - (0.0 if tied else embeddings)) / architecture.layers
    return _Gradients(layer, head, embeddings, every)


def _layer(architecture: Architecture, step: Step, width: int) -> _Layer:
    tape = Tape()
    x = tape.input(step.rows.tokens * architecture.hidden, width)
    size = x.size
    if step.checkpointing:
        x.storage.size = 0.0  # counted as the checkpoint's
    output = write_layer(Modules(tape, step.learning, step.rows.tokens), architecture, step.rows, x)
    if output.width != width:  # all layers but the first have what a layer makes for their input
        return _layer(architecture, step, output.width)
    backward = tape.backward(output, stays=not step.accumulates)
    return _Layer(width, size, tape.kept, tape.clinging, tape.forward_peak, backward)


def _scored(architecture: Architecture, step: Step, width: int) -> Scored:
    tape = Tape()
    x = tape.input(step.rows.tokens * architecture.hidden, width)
    modules = Modules(tape, step.learning, step.rows.tokens)
    return score(modules, architecture, x, step.loss, step.labelled, head_learns=step.head_learns)


def _moments(
    architecture: Architecture, step: Step, layer: _Layer, scored: Scored, gradients: _Gradients
) -> Iterator[Moment]:
    layers, checkpointing = architecture.layers, step.checkpointing
    waiting = layer.input + layer.clings if checkpointing else layer.kept
    casts = step.learned_bytes / 2 if checkpointing and step.learning.autocast else 0.0  # until the forward pass ends
    during, own = layer.backward, gradients.layer
    if not checkpointing:
        yield Moment(gradients.every * step.accumulates, (layers - 1) * waiting + layer.forward)
    else:
        during = layer.input + max(during, layer.forward + layer.input + own)
    at_loss = layers * waiting + max(scored.forward + casts, scored.backward) - scored.logits
    last = (layers - 1 + checkpointing) * layer.clings  # not let go before the whole backward pass is over
    if step.accumulates:
        yield Moment(gradients.every, at_loss, scored.logits)
        yield Moment(gradients.every, (layers - 1) * waiting + during)
        yield Moment(gradients.every, gradients.embeddings)
        return
    yield Moment(0.0, at_loss, scored.logits)
    yield Moment(gradients.head + own, (layers - 1) * waiting + during - own)
    yield Moment(gradients.head + layers * own, last + during - own)
    yield Moment(gradients.head + layers * own, last + layer.input + gradients.embeddings)
