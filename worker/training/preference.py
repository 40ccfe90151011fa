"""Direct preference optimisation: the chosen answer is to gain on the rejected one, measured from where both started.

Source: https://arxiv.org/abs/2305.18290, equation 7.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from transformers import TrainerCallback, TrainingArguments
from typing_extensions import override

from worker.training.batches import Collator, FlatCollator
from worker.training.data import IGNORED_LABEL
from worker.training.losses import Scoring, evaluating, moved, token_losses
from worker.training.pairs import EncodedPair, Pairs
from worker.training.trainer import AnswerTrainer, Values

logger = logging.getLogger(__name__)

_LOGGED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class PairCollator:
    """Pairs to one batch of `rows`' kind, chosen and rejected side by side, with what belongs to which.

    `numbers` (pairs,) are the pairs' own; `label_counts` (2 · pairs,) how many labels each sequence has.
    """

    rows: Collator | FlatCollator

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        counts = tuple(sum(label != IGNORED_LABEL for label in side.labels[1:]) for side in sides)
        numbers = tuple(pair.number for pair in pairs)
        return {**self.rows(sides), "numbers": numbers, "label_counts": counts}


def pair_logps(model: Any, batch: dict[str, Any], scoring: Scoring) -> torch.Tensor:
    """Summed log-probability of each pair's answers, (pairs, 2) in fp32: chosen, rejected."""
    losses = token_losses(model, batch, scoring)
    sums = torch.stack([each.sum() for each in torch.split(losses, batch["label_counts"])])
    return -sums.view(-1, 2)


def preference_losses(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses (pairs,) and rewards (pairs, 2) from log-probabilities (pairs, 2) of chosen and rejected.

    An answer's reward is beta · (log π - log π_ref); the loss is -log sigmoid(reward of chosen - that of rejected).
    """
    rewards = beta * (policy - reference)
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


class RewardMeans:
    """Weighted means of what pairs came to; they stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None
        self._weight = 0.0

    def add(self, losses: torch.Tensor, rewards: torch.Tensor, weight: float = 1.0) -> None:
        """Take losses (pairs,) and rewards (pairs, 2), each pair with this weight."""
        chosen, rejected = rewards[:, 0], rewards[:, 1]
        values = torch.stack([losses.detach(), chosen, rejected, chosen - rejected, (chosen > rejected).float()])
        sums = values.double().sum(dim=1) * weight
        self._sums = sums if self._sums is None else self._sums + sums
        self._weight += weight * len(losses)

    def take(self) -> Values:
        """Means since the last time: loss, rewards, margin, and the share of pairs whose chosen one is ahead."""
        if self._sums is None:
            return {}
        loss, chosen, rejected, margin, accuracy = (self._sums / self._weight).tolist()
        self._sums, self._weight = None, 0.0
        return {
            "loss": loss,
            "rewards_chosen": chosen,
            "rewards_rejected": rejected,
            "rewards_margin": margin,
            "rewards_accuracy": accuracy,
        }


class PreferenceTrainer(AnswerTrainer):
    """Learns from pairs. The reference is the model with its adapter off, or what was measured before training."""

    def __init__(
        self,
        beta: float,
        model: Any,
        arguments: TrainingArguments,
        rows: Pairs,
        collate: Collator | FlatCollator,
        callback: TrainerCallback,
    ) -> None:
        super().__init__(model, arguments, rows, collate, callback)
        self.collate = self.data_collator = PairCollator(collate)
        self._beta = beta
        self._means = RewardMeans()
        self._references: dict[int, list[float]] = {}  # (chosen, rejected) by a pair's number

    @override
    def get_batch_samples(self, *arguments: Any, **keywords: Any) -> tuple[list[Any], int]:
        """The step's micro-batches, and by how many pairs its loss is divided."""
        batches, _labels = super().get_batch_samples(*arguments, **keywords)
        return batches, sum(len(batch["numbers"]) for batch in batches)

    @override
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The micro-batch's summed loss over the pairs of the whole step."""
        self.tokens_seen += inputs["tokens"]
        losses, rewards = self._compare(model, inputs)
        self._means.add(losses, rewards, 1 / num_items_in_batch)
        return torch.div(losses.sum(), num_items_in_batch)

    @override
    def take_metrics(self) -> Values:
        """Rewards since the last time: means over the pairs of a step, and over the steps."""
        means = self._means.take()
        return {name: value for name, value in means.items() if name != "loss"}

    @override
    def measure(self, batches: Iterable[dict[str, Any]]) -> Values:
        """Mean loss, margin and accuracy over all pairs. The references stay known, as these pairs come again."""
        means = RewardMeans()
        with evaluating(self.model), torch.inference_mode():
            for batch in batches:
                inputs = moved(batch, self.args.device)
                if self._known(inputs) is None:
                    self._keep(inputs, self._adapter_off(self.model, inputs))
                means.add(*self._compare(self.model, inputs))
        values = means.take()
        return {f"eval_{name}": values[name] for name in ("loss", "rewards_margin", "rewards_accuracy")}

    def keep_start(self, batches: Iterable[dict[str, Any]], total: int) -> None:
        """Take the model as it is now for the reference of these `total` pairs; the log tells how far it is."""
        told = time.monotonic()
        with self.attending(), evaluating(self.model), torch.inference_mode():
            for batch in batches:
                inputs = moved(batch, self.args.device)
                self._keep(inputs, self._logps(self.model, inputs))
                if time.monotonic() - told >= _LOGGED_SECONDS:
                    told = time.monotonic()
                    logger.info("reference of %d of %d pairs", len(self._references), total)

    def _compare(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        reference = self._known(inputs)
        if reference is None:
            reference = self._adapter_off(model, inputs)
        return preference_losses(self._logps(model, inputs), reference, self._beta)

    def _logps(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (pairs, 2); policy and reference are computed in the same type, the head's too."""
        with self.accelerator.autocast():
            return pair_logps(model, inputs, self.scoring)

    def _adapter_off(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (pairs, 2) of the base model, which is there without a second copy."""
        adapted: Any = self.model
        with evaluating(model), adapted.disable_adapter(), torch.no_grad():
            return self._logps(model, inputs)

    def _known(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        known = [self._references.get(number) for number in inputs["numbers"]]
        return None if None in known else torch.tensor(known, device=self.args.device)

    def _keep(self, inputs: dict[str, Any], logps: torch.Tensor) -> None:
        self._references.update(zip(inputs["numbers"], logps.tolist(), strict=True))
