"""The loss: cross-entropy at the labelled positions alone, in fp32, without ever holding their logits all at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch.nn import LinearCrossEntropyOptions

from worker.training.data import IGNORED_LABEL
from worker.training.linear_loss import position_losses
from worker.training.proofs import proven

CHUNK_ROWS = 256
_INPUTS = ("input_ids", "position_ids", "row_lengths")
_TOLERANCE = {torch.float32: 1e-5}  # relative, for a chunked loss to count as equal to the plain one
_TOLERANCE_16_BIT = 1e-2


class Scoring(StrEnum):
    """How a model's labelled positions are scored; the value is the same each time."""

    CHUNKED = "chunked"  # from hidden states, some rows of logits at a time
    AT_LABELS = "at_labels"  # logits of the labelled positions, (labelled, vocabulary)
    WHOLE = "whole"  # logits of all positions, (batch, seq, vocabulary)


def choose_scoring(model: Any) -> Scoring:
    """The leanest scoring that gives the model's own loss: chunked only where that is shown on a few tokens."""
    base = _base_of(model)
    if "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return Scoring.WHOLE
    head = base.get_output_embeddings()
    plain = type(head) is torch.nn.Linear and head.bias is None and not _capped(base.config)
    equal = plain and proven("loss in chunks", lambda: _chunks_equal_plain(model))
    return Scoring.CHUNKED if equal else Scoring.AT_LABELS


def _capped(config: Any) -> bool:
    """Whether logits are soft-capped: small ones hardly, so that a few tokens might not show it."""
    return getattr(config.get_text_config(), "final_logit_softcapping", None) is not None


def _base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _chunks_equal_plain(model: Any) -> bool:
    """Logits that are changed after the head, or made elsewhere, give another loss; a mere factor passes through."""
    head = _base_of(model).get_output_embeddings()
    ids = (torch.arange(8, device=head.weight.device) * 37 + 11) % head.out_features
    batch = {"input_ids": ids[None], "labels": ids[None]}
    with evaluating(model), torch.inference_mode():
        plain, chunked = (float(answer_loss(model, batch, each)) for each in (Scoring.AT_LABELS, Scoring.CHUNKED))
    return abs(chunked - plain) <= _TOLERANCE.get(head.weight.dtype, _TOLERANCE_16_BIT) * abs(plain)


def answer_loss(model: Any, batch: dict[str, Any], scoring: Scoring) -> torch.Tensor:
    """Summed next-token cross-entropy in fp32, a scalar, over the labelled positions of a batch, padded or flattened.

    With CHUNKED and AT_LABELS logits of (batch, seq, vocabulary) never exist.
    """
    return _score(model, batch, scoring, "sum")


def token_losses(model: Any, batch: dict[str, Any], scoring: Scoring) -> torch.Tensor:
    """As `answer_loss`, for each labelled position by itself: (labelled,), one row's behind the other's."""
    return _score(model, batch, scoring, "none")


def _score(model: Any, batch: dict[str, Any], scoring: Scoring, reduction: str) -> torch.Tensor:
    targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED_LABEL)  # targets[:, i] is what position i predicts
    learned = targets != IGNORED_LABEL
    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    if scoring is Scoring.CHUNKED:
        head = _base_of(model).get_output_embeddings()
        with _passing_through(head):
            hidden = model(**inputs, logits_to_keep=learned, use_cache=False).logits
        return chunked_loss(hidden, head.weight, targets[learned], reduction)
    if scoring is Scoring.AT_LABELS:
        logits = model(**inputs, logits_to_keep=learned, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[learned]
    return F.cross_entropy(logits.float(), targets[learned], reduction=reduction)


@contextmanager
def _passing_through(head: torch.nn.Module) -> Iterator[None]:
    """Let the head return its input, so that the model's forward ends in hidden states instead of logits."""
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


def chunked_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, reduction: str = "sum"
) -> torch.Tensor:
    """Cross-entropy of `hidden @ weight.T`, (rows, vocabulary), without ever holding all of these logits.

    `reduction` is "sum" or "none", which gives (rows,). In float32 torch's own version is the faster one; elsewhere it
    rounds its result to the operands' type, and its memory is not bounded.
    """
    if hidden.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled(hidden.device.type):
        if len(targets) <= CHUNK_ROWS:
            return F.cross_entropy(F.linear(hidden, weight), targets, reduction=reduction)
        options = LinearCrossEntropyOptions(batch_chunk_size=CHUNK_ROWS)
        return F.linear_cross_entropy(hidden, weight, targets, reduction=reduction, options=options)
    losses = position_losses(hidden, weight, targets)
    return losses.sum() if reduction == "sum" else losses


def mean_loss(model: Any, batches: Iterable[dict[str, Any]], scoring: Scoring) -> float:
    """Mean loss per labelled token over all batches, in nats: weighted by tokens, so the batch size does not matter."""
    device = next(model.parameters()).device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            count += int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())
            total += answer_loss(model, moved(batch, device), scoring)
    return float(total) / max(count, 1)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Without dropout inside the block; after it as before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
