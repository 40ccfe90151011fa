"""How far two models are apart on the same tokens, taken up text by text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from worker.training.data import IGNORED_LABEL

_ROWS = 64  # positions that are looked at at once, in double precision


@dataclass(slots=True)
class Divergence:
    """Logits are (seq, vocabulary) in fp32. Differences are of logits; relative ones of their spread over the words."""

    positions: int = 0
    _largest: float = 0.0
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("absolute", "square", "spread", "kl"), 0.0))
    _values: int = 0

    def add(self, reference: torch.Tensor, other: torch.Tensor) -> None:
        """What both say on one text."""
        for first in range(0, len(reference), _ROWS):
            self._add(reference[first : first + _ROWS], other[first : first + _ROWS])

    def _add(self, reference: torch.Tensor, other: torch.Tensor) -> None:
        difference = (reference - other).double()
        self.positions += len(reference)
        self._values += difference.numel()
        self._largest = max(self._largest, float(difference.abs().max()))
        self._sums["absolute"] += float(difference.abs().sum())
        self._sums["square"] += float(difference.square().sum())
        self._sums["spread"] += float(reference.std(dim=1).sum())
        was, now = reference.double().log_softmax(-1), other.double().log_softmax(-1)
        self._sums["kl"] += float((was.exp() * (was - now)).sum())

    @property
    def relative(self) -> float:
        """Root mean square of the differences, as a share of the reference's mean spread."""
        return float((self._sums["square"] / self._values) ** 0.5 / (self._sums["spread"] / self.positions))

    @property
    def kl(self) -> float:
        """Kullback-Leibler divergence of the other from the reference, in nats, at the mean position."""
        return self._sums["kl"] / self.positions

    def to_json(self) -> dict[str, Any]:
        """As the certificate has it."""
        return {
            "max_logit_difference": self._largest,
            "mean_logit_difference": self._sums["absolute"] / self._values,
            "relative_difference": self.relative,
            "kl_divergence": self.kl,
            "compared_tokens": self.positions,
        }


@dataclass(slots=True)
class MeanLoss:
    """Of the labelled tokens of several texts, in nats."""

    tokens: int = 0
    _sum: float = 0.0

    def add(self, logits: torch.Tensor, labels: list[int]) -> None:
        """`logits` (seq, vocabulary) predict the label one further on."""
        targets = torch.tensor(labels[1:])
        learned = targets != IGNORED_LABEL
        losses = torch.nn.functional.cross_entropy(logits[:-1][learned].double(), targets[learned], reduction="sum")
        self.tokens += int(learned.sum())
        self._sum += float(losses)

    @property
    def value(self) -> float | None:
        return self._sum / self.tokens if self.tokens else None
