"""The real child, which finds its device full in the second step: in place of `python -m worker.child`."""

from __future__ import annotations

import sys
from typing import Any

import torch

from worker import child
from worker.training.trainer import AnswerTrainer

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 12.00 GiB of which 1.00 GiB is free."
compute_loss = AnswerTrainer.compute_loss


def starve(self: AnswerTrainer, *arguments: Any, **keywords: Any) -> Any:
    if self.state.global_step == 1:
        raise torch.OutOfMemoryError(MESSAGE)
    return compute_loss(self, *arguments, **keywords)


if __name__ == "__main__":
    AnswerTrainer.compute_loss = starve  # type: ignore[method-assign]
    sys.exit(child.main())
