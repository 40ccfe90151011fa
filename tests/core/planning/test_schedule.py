"""Steps, tokens and time of a run."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.datasets.split import held_out_of
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.planning.schedule import Past, make_schedule


def make(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


@pytest.mark.parametrize(
    ("values", "rows", "expected"),
    [
        ({}, 200, (190, 10, 48, 1.0)),
        ({"num_train_epochs": 3}, 200, (190, 10, 144, 3.0)),
        ({"gradient_accumulation_steps": 4, "num_train_epochs": 2}, 200, (190, 10, 24, 2.0)),
        ({"max_steps": 12}, 200, (190, 10, 12, 0.25)),
        ({"eval_fraction": 0}, 7, (7, 0, 2, 1.0)),
        ({"eval_max_rows": 100}, 1_000_000, (999_900, 100, 249_975, 1.0)),
    ],
)
def test_steps_follow_rows_batch_and_epochs(values: dict[str, Any], rows: int, expected: tuple[float, ...]) -> None:
    schedule = make_schedule(make(**values), rows, Past())

    assert (schedule.rows_train, schedule.rows_eval, schedule.steps, schedule.epochs) == expected
    assert schedule.tokens is None
    assert schedule.seconds is None
    assert schedule.seconds_reason.startswith("unknown")


def test_time_comes_from_what_this_box_has_done() -> None:
    schedule = make_schedule(make(num_train_epochs=2), 200, Past(tokens_per_second=100.0, tokens_per_row=50.0, jobs=2))

    assert schedule.tokens == 2 * 190 * 50
    assert schedule.seconds == 190
    assert schedule.seconds_reason == "from 2 finished jobs on this box"


def test_without_rows_only_a_given_number_of_steps_is_known() -> None:
    assert make_schedule(make(), None, Past()).steps is None
    assert make_schedule(make(max_steps=9), None, Past()).steps == 9


def test_a_dataset_whose_length_is_not_known_has_no_time() -> None:
    schedule = make_schedule(make(), 200, Past(tokens_per_second=100.0, jobs=1))

    assert schedule.seconds is None
    assert "has read this dataset" in schedule.seconds_reason


def test_at_least_one_row_is_held_out_and_one_is_left() -> None:
    assert [held_out_of(count, 0.5, None) for count in (0, 1, 2, 3, 1000)] == [0, 0, 1, 2, 500]
    assert held_out_of(1000, 0.001, None) == 1
    assert held_out_of(1000, 0.5, 12) == 12
