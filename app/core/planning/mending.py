"""Values under which a job would fit: those that change least of its result first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec, own_defaults, parse_spec

_SHORTEST = 128  # tokens; rows cut below half of that hold no conversation


def find_values_that_fit(
    spec: TrainingSpec, now: int, allowed: float, peak: Callable[[TrainingSpec], int | None]
) -> dict[str, Any]:
    """The changes, one upon the other, that bring the peak from `now` to `allowed` bytes; where none do, all that lower
    it.
    """
    chosen: dict[str, Any] = {}
    least = now

    def size_of(change: Mapping[str, Any]) -> int | None:
        return _peak_with(spec, {**chosen, **change}, peak)

    for steps in _list_changes(spec):
        change, size = _mildest_that_fits(steps, allowed, size_of)
        if size is None or size >= least:
            continue
        chosen, least = {**chosen, **change}, size
        if size <= allowed:
            break
    return chosen


def _mildest_that_fits(
    steps: Sequence[dict[str, Any]], allowed: float, size_of: Callable[[Mapping[str, Any]], int | None]
) -> tuple[dict[str, Any], int | None]:
    """Of changes of the same values, each taking less memory than the one before; where none fits, the last."""
    change, size = steps[-1], size_of(steps[-1])
    if size is None or size > allowed:
        return change, size
    low, high = 0, len(steps) - 1  # `high` fits
    while low < high:
        middle = (low + high) // 2
        found = size_of(steps[middle])
        if found is not None and found <= allowed:
            change, size, high = steps[middle], found, middle
        else:
            low = middle + 1
    return change, size


def _peak_with(spec: TrainingSpec, values: Mapping[str, Any], peak: Callable[[TrainingSpec], int | None]) -> int | None:
    try:
        return peak(parse_spec({**spec.model_dump(mode="json"), **values}))
    except InvalidInput:  # a combination that there is not
        return None


def _list_changes(spec: TrainingSpec) -> Iterator[Sequence[dict[str, Any]]]:
    """What to try in turn, of the same values in several sizes."""
    if spec.gradient_checkpointing is False:
        yield [{"gradient_checkpointing": True}]
    if spec.per_device_train_batch_size > 1:
        yield list(_smaller_batches(spec))
    if spec.method == "full":
        rate = own_defaults("lora", spec.task).get("learning_rate", TrainingSpec.model_fields["learning_rate"].default)
        yield [{"method": "lora", "learning_rate": rate}]
    if spec.method != "qlora":
        yield [{"method": "qlora"}]
    lengths = [{"max_length": length} for length in (spec.max_length // 2, spec.max_length // 4)]
    if shorter := [each for each in lengths if each["max_length"] * 2 >= _SHORTEST]:
        yield shorter


def _smaller_batches(spec: TrainingSpec) -> Iterator[dict[str, Any]]:
    """Halves, at the same effective batch."""
    size, accumulation = spec.per_device_train_batch_size, spec.gradient_accumulation_steps
    while size > 1:
        smaller = size // 2 if size % 2 == 0 else 1
        accumulation, size = accumulation * size // smaller, smaller
        yield {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
