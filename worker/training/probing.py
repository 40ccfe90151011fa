"""A probe: the run's largest steps, taken before the run proper and forgotten, so that its peak is known early."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from worker.training.trainer import AnswerTrainer

logger = logging.getLogger(__name__)

_STEPS = 2  # the second one has the optimizer's state beside it


class Probe:
    """Takes a probe of a trainer, and keeps what came out: `measured`, None until then."""

    def __init__(self, trainer: AnswerTrainer) -> None:
        self._trainer = trainer
        self.measured: dict[str, Any] | None = None

    def take(self, optimizer: Any) -> None:
        """Two optimizer steps on the longest batch, which leave weights, optimizer and draws as they were.

        `measured` holds steps, tokens (of the largest micro-batch), peak_bytes and memory: `device` for what CUDA's
        allocator held, `process` for the largest resident set so far where there is no GPU. Raises:
        torch.OutOfMemoryError.
        """
        trainer, device = self._trainer, self._trainer.args.device
        on_cuda = device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        tokens_seen = trainer.tokens_seen
        with torch.random.fork_rng(devices=[device] if on_cuda else []), _without_learning(optimizer):
            batches = _first_step(trainer)
            for _ in range(_STEPS):
                _step(trainer, batches, optimizer)
        trainer.tokens_seen = tokens_seen
        trainer.take_metrics()
        tokens = max(batch["tokens"] for batch in batches)
        peak = torch.cuda.max_memory_allocated(device) if on_cuda else _largest_resident_set()
        memory = "device" if on_cuda else "process"
        logger.info("probe: the largest step, %d tokens, peaks at %.2f GB of %s memory", tokens, peak / 1e9, memory)
        self.measured = {"steps": _STEPS, "tokens": tokens, "peak_bytes": peak, "memory": memory}

    def summary(self) -> dict[str, Any]:
        """The figures for the job's summary; none where no probe was taken."""
        return {"probe": self.measured} if self.measured else {}


def _first_step(trainer: AnswerTrainer) -> list[dict[str, Any]]:
    """The micro-batches of the first optimizer step, which the sampler makes of the longest rows."""
    rows: Any = trainer.train_dataset
    size = trainer.args.train_batch_size
    numbers = list(islice(trainer._get_train_sampler(), size * trainer.args.gradient_accumulation_steps))
    return [trainer.data_collator([rows[i] for i in numbers[at : at + size]]) for at in range(0, len(numbers), size)]


def _step(trainer: AnswerTrainer, batches: list[dict[str, Any]], optimizer: Any) -> None:
    for batch in batches:
        trainer.training_step(trainer.model, dict(batch), trainer.args.train_batch_size)
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _without_learning(optimizer: Any) -> Iterator[None]:
    """Steps inside the block have a learning rate of 0; what the optimizer noted in them is forgotten after it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        optimizer.zero_grad()
        optimizer.state.clear()


def _largest_resident_set() -> int:
    """Of this process since its start, in bytes, as Linux counts it (in kibibytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
