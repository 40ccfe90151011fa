"""Flattening, padding, and the order of rows."""

from __future__ import annotations

import pytest

from worker.training.batches import Collator, FlatCollator, LengthGroupedSampler
from worker.training.data import IGNORED_LABEL, EncodedRow

pytestmark = pytest.mark.model

LENGTHS = [(7 * i) % 50 + 1 for i in range(203)]


def test_padding_is_on_the_right_and_unlabelled_whatever_id_it_has() -> None:
    end = 2  # the end-of-turn token doubles as padding
    rows = [EncodedRow([5, 6, end], [IGNORED_LABEL, 6, end], 3), EncodedRow([7, end], [IGNORED_LABEL, end], 2)]
    batch = Collator(pad_token_id=end)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, end], [7, end, end]]
    assert batch["labels"].tolist() == [[IGNORED_LABEL, 6, end], [IGNORED_LABEL, end, IGNORED_LABEL]]
    assert batch["tokens"] == 5


def test_flattened_rows_lie_end_to_end_and_start_anew() -> None:
    rows = [EncodedRow([5, 6, 2], [IGNORED_LABEL, 6, 2], 3), EncodedRow([7, 2], [7, 2], 2)]
    batch = FlatCollator()(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 2, 7, 2]]
    assert batch["labels"].tolist() == [[IGNORED_LABEL, 6, 2, IGNORED_LABEL, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert (batch["row_lengths"], batch["tokens"]) == ((3, 2), 5)


def test_each_epoch_holds_every_row_once_in_another_order() -> None:
    sampler = LengthGroupedSampler(LENGTHS, batch_size=4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == sorted(second) == list(range(len(LENGTHS)))
    assert first != second


def test_the_order_of_an_epoch_needs_none_before_it() -> None:
    one, other = (LengthGroupedSampler(LENGTHS, batch_size=4, seed=1) for _ in range(2))
    for epoch in range(3):
        one.set_epoch(epoch)
        list(one)
    other.set_epoch(2)
    assert list(one) == list(other)


def test_order_is_the_same_for_the_same_seed() -> None:
    orders = [list(LengthGroupedSampler(LENGTHS, batch_size=4, seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_the_longest_row_comes_in_the_first_batch() -> None:
    order = list(LengthGroupedSampler(LENGTHS, batch_size=4, seed=3))
    assert max(LENGTHS) in [LENGTHS[i] for i in order[:4]]


def test_rows_of_equal_length_do_not_gather_at_the_start() -> None:
    """As happens where max_length cuts many rows."""
    lengths = [50] * 60 + [10] * 140
    order = list(LengthGroupedSampler(lengths, batch_size=4, seed=1))
    assert lengths[order[0]] == 50
    assert sum(lengths[i] == 50 for i in order[:60]) < 40


def test_batches_hold_little_padding_and_do_not_shrink_steadily() -> None:
    order = list(LengthGroupedSampler(LENGTHS, batch_size=4, seed=1))
    batches = [[LENGTHS[i] for i in order[start : start + 4]] for start in range(0, len(order), 4)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert sum(LENGTHS) / padded > 0.9
    widths = [max(batch) for batch in batches[1:11]]
    assert widths != sorted(widths, reverse=True)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_fewer_rows_than_a_group(count: int) -> None:
    assert sorted(LengthGroupedSampler(LENGTHS[:count], batch_size=4, seed=0)) == list(range(count))
