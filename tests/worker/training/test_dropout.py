"""Our dropout drops what it should, scales what stays, passes gradients by the same mask, and follows the seed."""

from __future__ import annotations

import pytest
import torch

from worker.training.dropout import BitDropout, quicken_dropout

pytestmark = pytest.mark.model


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = BitDropout(p)(torch.ones(1000, 1001))

    dropped = float((out == 0).double().mean())
    assert dropped == pytest.approx(p, abs=4 * (p * (1 - p) / out.numel()) ** 0.5)  # four standard deviations
    assert float(out.max()) == pytest.approx(1 / (1 - p), rel=1e-3)
    assert float(out.double().mean()) == pytest.approx(1, abs=0.01)


def test_each_of_four_neighbours_is_drawn_by_itself() -> None:
    torch.manual_seed(0)
    kept = (BitDropout(0.5)(torch.ones(40_000, 4)) != 0).double()

    assert torch.allclose(torch.corrcoef(kept.T), torch.eye(4, dtype=torch.float64), atol=0.03)


def test_gradients_pass_where_the_values_passed() -> None:
    values = torch.randn(3, 5, 7, requires_grad=True)
    out = BitDropout(0.4)(values)
    out.sum().backward()

    assert values.grad is not None
    assert torch.equal(values.grad == 0, out == 0)
    torch.testing.assert_close(values.grad * values.detach(), out.detach())


def test_a_seed_and_a_restored_state_drop_the_same_again() -> None:
    dropout, ones = BitDropout(0.3), torch.ones(777)
    torch.manual_seed(5)
    first, state, second = dropout(ones), torch.get_rng_state(), dropout(ones)
    torch.manual_seed(5)

    assert torch.equal(dropout(ones), first)
    torch.set_rng_state(state)
    assert torch.equal(dropout(ones), second)
    assert not torch.equal(first, second)


def test_keeps_the_type_of_sixteen_bit_values() -> None:
    assert BitDropout(0.1)(torch.ones(8, dtype=torch.bfloat16)).dtype is torch.bfloat16


def test_evaluation_and_p_zero_change_nothing() -> None:
    values = torch.randn(64)

    assert torch.equal(BitDropout(0.5).eval()(values), values)
    assert torch.equal(BitDropout(0.0)(values), values)


def test_takes_the_place_of_plain_dropouts_alone() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Dropout(0.2), "b": torch.nn.Dropout2d(0.2), "c": torch.nn.Identity()})
    quicken_dropout(model)

    assert type(model["a"]) is BitDropout
    assert model["a"].p == 0.2
    assert [type(model[name]) for name in "bc"] == [torch.nn.Dropout2d, torch.nn.Identity]
