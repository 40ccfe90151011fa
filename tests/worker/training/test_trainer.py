"""The learning rate's schedule: transformers' own, but no step is wasted on a rate of 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.tiny import read_records
from worker.context import JobContext
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize(
    ("spec", "shares"),
    [
        ({"warmup_ratio": 0.6}, [1 / 3, 2 / 3, 1, _cosine(1 / 3), _cosine(2 / 3)]),
        ({"warmup_ratio": 0.03}, [_cosine(i / 5) for i in range(5)]),
        ({"warmup_ratio": 0}, [_cosine(i / 5) for i in range(5)]),
        ({"warmup_ratio": 0.4, "lr_scheduler_type": "linear"}, [1 / 2, 1, 3 / 4, 2 / 4, 1 / 4]),
        ({"warmup_ratio": 0.4, "lr_scheduler_type": "constant_with_warmup"}, [1 / 2, 1, 1, 1, 1]),
        ({"warmup_ratio": 0.4, "lr_scheduler_type": "constant"}, [1, 1, 1, 1, 1]),
        ({"warmup_ratio": 0.9, "max_steps": 2}, [1 / 2, 1]),
    ],
)
def test_the_learning_rate_is_above_zero_from_the_first_step_on(
    spec: dict[str, Any], shares: list[float], make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.run.write_samples", lambda *_: None)  # they take most of the time
    context = make_job(**{"max_steps": 5, "learning_rate": 1e-3, "eval_fraction": 0, "save_steps": 100, **spec})
    run_training(context)
    points = [r.data["learning_rate"] for r in read_records(context) if "learning_rate" in r.data]
    assert points == pytest.approx([1e-3 * share for share in shares])
