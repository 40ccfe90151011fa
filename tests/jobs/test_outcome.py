"""What came of a training is said in words, and only what is known."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.jobs.spec import TrainingSpec
from app.jobs.outcome import describe_outcome

SUMMARY = {
    "steps": 30,
    "saved_step": 20,
    "stopped_early": True,
    "resumed_from_step": 10,
    "attempts": 2,
    "tokens": 12345,
    "trained_tokens_per_epoch": 4321,
    "tokens_per_second": 98.7,
    "rows_train": 2090,
    "rows_eval": 110,
    "rows_dropped": 3,
    "rows_truncated": 0,
    "rows_split": 5,
    "eval_rows_left_to_train": 4890,
    "first_rows": {"dropped": [7, 9], "truncated": []},
    "packs": 200,
    "rows_per_pack": 10.45,
    "pack_density": 0.934,
    "trainable_parameters": 1000,
    "all_parameters": 100_000,
    "adapter_bytes": 2048,
    "optim": "adamw_8bit",
    "quantization": "nf4",
    "device": "cpu",
    "dtype": "float32",
}
EVALS = [(0, 3.0), (10, 2.0), (20, 1.5), (30, 1.75)]


def _facts(summary: dict[str, Any], evals: list[tuple[int, float | None]] | None = None, **spec: Any) -> dict[str, Any]:
    values = TrainingSpec(base_model="tiny", dataset="small", **spec).model_dump(mode="json")
    return {fact.label: (fact.value, fact.note) for fact in describe_outcome(values, summary, evals or [])}


def test_everything_that_is_known_is_said() -> None:
    facts = _facts(SUMMARY, EVALS, early_stopping_patience=2, optim="paged_adamw_8bit")
    assert facts == {
        "best eval loss": ("1.5 at step 20", "what was saved"),
        "stopped early": ("at step 30", "2 evals without a better eval loss"),
        "resumed": ("from step 10", "attempt 2"),
        "tokens read": ("12,345", "padding not counted"),
        "tokens learned": ("4,321", "per pass over the data"),
        "tokens/s": ("98.7", "mean, padding not counted"),
        "sequences trained on": ("2,090", ""),
        "sequences held out": ("110", "eval_max_rows; 4,890 more rows are trained on instead"),
        "rows dropped": ("3", "too long, or nothing to learn left: 7, 9, …"),
        "rows split": ("5", "into several sequences"),
        "packs": ("200", "10.45 rows each, 93% filled"),
        "trained parameters": ("1,000", "1.00% of 100,000"),
        "adapter": ("2.0 KiB", ""),
        "optimizer": ("adamw_8bit", "instead of paged_adamw_8bit, which this device cannot run"),
        "base weights": ("nf4", ""),
        "computed on": ("cpu in float32", ""),
    }


def test_a_run_that_was_stopped_and_saved_says_so() -> None:
    facts = _facts({"steps": 1200, "stopped_by_user": True})
    assert facts == {"stopped, saved": ("at step 1,200", "as asked; what was trained until then is saved")}


def test_what_is_not_known_is_left_out() -> None:
    assert _facts({}) == {}
    assert _facts({"rows_train": 1, "optim": "adamw_torch", "resumed_from_step": None}).keys() == {
        "sequences trained on"
    }


@pytest.mark.parametrize(
    ("evals", "saved", "expected"),
    [
        ([(0, 1.0), (10, 2.0)], 10, ("2 at step 10", "")),
        ([(10, 1.0), (20, 2.0)], 20, ("1 at step 10", "what was saved is of step 20")),
        ([(10, None), (20, 2.0)], 20, ("2 at step 20", "")),
    ],
)
def test_the_best_eval_loss_is_the_trained_models_and_says_whether_it_was_saved(
    evals: list[tuple[int, float | None]], saved: int, expected: tuple[str, str]
) -> None:
    assert _facts({"saved_step": saved}, evals)["best eval loss"] == expected


def test_of_preference_data_pairs_are_counted() -> None:
    assert _facts({"rows_train": 7, "row_unit": "pair"}, task="dpo") == {"pairs trained on": ("7", "")}


def test_rewards_of_held_out_pairs_go_before_those_of_the_last_steps() -> None:
    summary = {"rewards_margin": 2.0, "eval_rewards_margin": 1.5, "rewards_accuracy": 0.75}
    assert _facts(summary, task="dpo") == {
        "reward margin": ("1.5", "of held-out pairs"),
        "reward accuracy": ("0.75", "of the last steps"),
    }


def test_of_a_whole_model_its_own_size_is_said() -> None:
    assert _facts({"model_bytes": 3 * 2**30}, method="full") == {"model": ("3.0 GiB", "")}
