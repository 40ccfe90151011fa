"""The loss: cross-entropy at the labelled positions alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from worker.training.data import IGNORED_LABEL


def takes_positions(model: Any) -> bool:
    """Whether the base model's forward can score chosen positions only (`logits_to_keep`)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def answer_loss(model: Any, input_ids: torch.Tensor, labels: torch.Tensor, *, at_labels: bool) -> torch.Tensor:
    """Summed next-token cross-entropy in fp32, a scalar, over the labelled positions of (batch, seq).

    With `at_labels` the head scores those positions alone, so logits are (labelled, vocabulary) instead of (batch, seq,
    vocabulary); the value is the same.
    """
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)  # targets[:, i] is what position i predicts
    learned = targets != IGNORED_LABEL
    if at_labels:
        logits = model(input_ids=input_ids, logits_to_keep=learned, use_cache=False).logits
    else:
        logits = model(input_ids=input_ids, use_cache=False).logits[learned]
    return F.cross_entropy(logits.float(), targets[learned], reduction="sum")


def mean_loss(model: Any, batches: Iterable[dict[str, Any]], *, at_labels: bool) -> float:
    """Mean loss per labelled token over all batches, in nats: weighted by tokens, so the batch size does not matter."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    with torch.inference_mode():
        for batch in batches:
            labels = batch["labels"]
            total += answer_loss(model, batch["input_ids"].to(device), labels.to(device), at_labels=at_labels)
            count += int((labels[:, 1:] != IGNORED_LABEL).sum())
    model.train(training)
    return float(total) / max(count, 1)
