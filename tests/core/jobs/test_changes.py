"""Changes that take less memory: only what applies, what changes least first, and the effective batch kept."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.jobs.changes import Change, Rows, Setting
from app.core.jobs.ranking import rank_changes
from app.core.jobs.spec import TrainingSpec, parse_spec

GIB = 2**30
ROWS = Rows(count=1000, longest=512, longer_than=((256, 8), (128, 700)))
CAPABLE = {"cuda": "13.0", "paged": True, "cannot": {}}


def make_spec(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


def peak_of(spec: TrainingSpec) -> int:
    """A plan of round numbers: the micro-batch's tokens count most, then weights, optimizer and rank."""
    tokens = spec.per_device_train_batch_size * spec.max_length
    activations = tokens * (0.001 if spec.gradient_checkpointing is True else 0.004)
    weights = {"lora": 4, "qlora": 2, "full": 16}[spec.method]
    return round(GIB * (weights + activations + ("8bit" not in spec.optim) + spec.r / 64))


def rank(
    spec: TrainingSpec, capacity: float | None = None, *, rows: Rows = ROWS, cuda: bool = False, **capabilities: Any
) -> list[Change]:
    known = {**CAPABLE, "cuda": "13.0" if cuda else None, **capabilities}
    setting = Setting(cuda, known, rows, None if capacity is None else round(capacity * GIB))
    return rank_changes(spec, setting, peak_of)


def test_what_keeps_the_result_comes_before_what_changes_it() -> None:
    changes = rank(make_spec(per_device_train_batch_size=4, gradient_accumulation_steps=4, r=32))
    assert [change.key for change in changes] == [
        "checkpointing", "batch-2", "batch-1", "checkpointing+batch-1", "adamw_8bit", "max_length-256", "qlora",
        "rank-16", "max_length-128",
    ]  # fmt: skip
    assert changes[3].title == "Gradient checkpointing, batch 1, accumulation 16"
    assert changes[5].effect == "Cuts 8 of 1,000 rows."


def test_what_fits_comes_first_and_what_does_not_says_so() -> None:
    spec = make_spec(per_device_train_batch_size=4)
    changes = rank(spec, capacity=8.2)
    assert [(change.key, change.fits) for change in changes] == [
        ("checkpointing", True), ("batch-1", True), ("max_length-128", True),
        ("batch-2", False), ("adamw_8bit", False), ("max_length-256", False), ("qlora", False), ("rank-8", False),
    ]  # fmt: skip
    together, alone = rank(spec, capacity=7.6)[:2]
    assert (together.key, together.fits) == ("checkpointing+batch-2", True)
    assert (alone.key, alone.fits) == ("checkpointing", None), "the allocator's fragments may be too much beside it"


def test_where_none_fits_alone_the_first_few_that_fit_together_are_offered() -> None:
    spec = make_spec(per_device_train_batch_size=4, max_length=2048, r=16)
    first, *singles = rank(spec, capacity=5, rows=Rows())
    assert (first.key, first.fits) == ("checkpointing+batch-1+adamw_8bit+qlora", True)
    assert first.title == "Gradient checkpointing, batch 1, accumulation 4, optimizer adamw_8bit, QLoRA"
    assert "4 bits" in first.effect
    assert first.values == {
        "gradient_checkpointing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4,
        "optim": "adamw_8bit", "method": "qlora",
    }  # fmt: skip
    assert rank(spec, capacity=6, rows=Rows())[0].key == "checkpointing+batch-1+qlora", "without what is not needed"
    assert {change.fits for change in singles} == {False}
    halved = rank(make_spec(per_device_train_batch_size=4, max_length=2048), capacity=10.5, rows=Rows())[0]
    assert halved.key == "checkpointing+batch-2", "no more than is needed"
    assert rank(spec, capacity=1)[0].fits is False


def test_where_the_plan_was_too_low_it_promises_nothing() -> None:
    assert {change.fits for change in rank(make_spec(), capacity=100)} == {None}
    assert {change.fits for change in rank(make_spec())} == {None}


@pytest.mark.parametrize(
    ("batch", "accumulation", "expected"),
    [(4, 4, [(2, 8), (1, 16)]), (6, 1, [(3, 2), (1, 6)]), (3, 2, [(1, 6)]), (2, 1, [(1, 2)]), (1, 8, [])],
)
def test_smaller_batches_keep_the_effective_one_exactly(
    batch: int, accumulation: int, expected: list[tuple[int, int]]
) -> None:
    spec = make_spec(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    found = [change.values for change in rank(spec) if change.key.startswith("batch-")]
    sizes = [(each["per_device_train_batch_size"], each["gradient_accumulation_steps"]) for each in found]
    assert sizes == expected
    assert all(size * steps == batch * accumulation for size, steps in sizes)


@pytest.mark.parametrize(("given", "cuda", "offered"), [
    ("auto", False, True), ("auto", True, False), (True, False, False), (False, True, True),
])  # fmt: skip
def test_checkpointing_is_offered_where_it_is_off(given: Any, cuda: bool, offered: bool) -> None:
    keys = [change.key for change in rank(make_spec(gradient_checkpointing=given), cuda=cuda)]
    assert ("checkpointing" in keys) is offered


def test_what_the_worker_cannot_run_or_the_spec_cannot_hold_is_not_offered() -> None:
    cannot = {"4bit": "no bitsandbytes", "adamw_8bit": "no bitsandbytes"}
    keys = {change.key for change in rank(make_spec(), cannot=cannot)}
    assert not keys & {"qlora", "adamw_8bit"}
    assert "qlora" not in {change.key for change in rank(make_spec(init_lora_weights="olora"))}
    assert "rank-9" not in {change.key for change in rank(make_spec(r=18, init_lora_weights="orthogonal"))}
    assert "rank-9" in {change.key for change in rank(make_spec(r=18))}


@pytest.mark.parametrize(
    ("optim", "cuda", "offered"),
    [
        ("adamw_torch", True, "paged_adamw_8bit"),
        ("adamw_8bit", True, None),  # the plan of these tests knows no paging: no less, so not offered
        ("paged_adamw_8bit", True, None),
        ("paged_adamw_32bit", False, "adamw_8bit"),
        ("adamw_8bit", False, None),
    ],
)
def test_the_leanest_optimizer_of_the_machine_is_offered(optim: str, cuda: bool, offered: str | None) -> None:
    keys = {change.key for change in rank(make_spec(optim=optim), cuda=cuda)}
    assert keys & {"adamw_8bit", "paged_adamw_8bit"} == ({offered} if offered else set())


def test_a_lower_rank_keeps_the_scale_of_the_update() -> None:
    def scale(change: Change, power: float) -> float:
        return float(change.values["lora_alpha"]) / change.values["r"] ** power

    plain = next(change for change in rank(make_spec(r=64, lora_alpha=64)) if change.key == "rank-32")
    stabilised = next(change for change in rank(make_spec(r=64, use_rslora=True)) if change.key == "rank-32")
    assert scale(plain, 1) == 1
    assert scale(stabilised, 0.5) == pytest.approx(32 / 8, rel=1e-4)


def test_a_shorter_length_than_the_longest_row_alone_is_offered() -> None:
    spec = make_spec(max_length=2048)
    keys = [change.key for change in rank(spec, rows=Rows(1000, 700, ((1024, 0), (512, 300))))]
    assert [key for key in keys if key.startswith("max_length")] == ["max_length-512"]
    unknown = next(change for change in rank(spec, rows=Rows()) if change.key == "max_length-1024")
    assert unknown.effect == "Cuts rows that are longer."
    dropped = rank(make_spec(max_length=512, overlong_rows="drop"))
    assert "Leaves out 700 of 1,000 rows." in [change.effect for change in dropped]


def test_of_full_training_an_adapter_takes_least_at_its_own_learning_rate() -> None:
    changes = {change.key: change for change in rank(make_spec(method="full"))}
    for method in ("lora", "qlora"):
        assert changes[method].values == {"method": method, "learning_rate": 2e-4}
    assert (changes["qlora"].peak_bytes or 0) < (changes["lora"].peak_bytes or 0)
    preferring = next(change for change in rank(make_spec(method="full", task="dpo")) if change.key == "lora")
    assert preferring.values["learning_rate"] == 5e-5


def test_without_a_plan_the_changes_are_offered_without_a_peak() -> None:
    changes = rank_changes(make_spec(), Setting(False, None, Rows(), None), lambda _spec: None)
    assert [change.key for change in changes][:2] == ["checkpointing", "batch-2"]
    assert {(change.peak_bytes, change.fits) for change in changes} == {(None, None)}
