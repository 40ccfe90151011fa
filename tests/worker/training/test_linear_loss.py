"""Cross-entropy by tiles is the plain one, for each position and with every gradient, in little memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.worker.training.test_losses import peak_bytes
from worker.training import linear_loss
from worker.training.linear_loss import position_losses

pytestmark = pytest.mark.model

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture(params=[1, 4, 7, 100], ids=lambda rows: f"tiles of {rows}")
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "TILE_ELEMENTS", request.param * 50 + 3)


def _operands(dtype: torch.dtype = torch.float32) -> Tensors:
    torch.manual_seed(1)
    hidden, weight = torch.randn(11, 16), torch.randn(50, 16)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), torch.randint(0, 50, (11,))


def _plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="none")


def _gradients(losses: torch.Tensor, operands: Tensors) -> tuple[torch.Tensor, ...]:
    """By hidden states and head, where each position weighs otherwise."""
    return torch.autograd.grad((losses * torch.linspace(-1, 2, len(losses))).sum(), operands[:2])


def test_losses_and_gradients_are_the_plain_ones(tiles: None) -> None:
    operands = _operands()
    ours, plain = position_losses(*operands), _plain(*operands)
    torch.testing.assert_close(ours, plain)
    for mine, other in zip(_gradients(ours, operands), _gradients(plain, operands), strict=True):
        torch.testing.assert_close(mine, other)


def test_in_16_bits_losses_are_rounded_no_further_than_their_logits(tiles: None) -> None:
    operands = _operands(torch.bfloat16)
    ours, plain = position_losses(*operands), _plain(*operands)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, plain)
    for mine, other in zip(_gradients(ours, operands), _gradients(plain, operands), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, other, atol=3e-2, rtol=3e-2)


def test_under_autocast_fp32_operands_are_multiplied_in_16_bits_and_keep_fp32_gradients(tiles: None) -> None:
    operands = _operands()
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = position_losses(*operands), _plain(*operands)
    torch.testing.assert_close(ours, plain)
    for mine, other in zip(_gradients(ours, operands), _gradients(plain, operands), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, atol=3e-2, rtol=3e-2)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, targets = _operands()
    position_losses(hidden, weight.detach(), targets).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_a_large_vocabulary_takes_little_memory_however_many_positions_there_are() -> None:
    vocabulary, positions = 49_152, 3 * linear_loss.TILE_ELEMENTS // 49_152
    hidden = torch.randn(positions, 4, dtype=torch.bfloat16, requires_grad=True)
    weight, targets = torch.randn(vocabulary, 4, dtype=torch.bfloat16), torch.randint(0, vocabulary, (positions,))
    whole, peak = (
        4 * vocabulary * positions,
        peak_bytes(lambda: position_losses(hidden, weight, targets).sum().backward()),
    )
    assert peak < 80 * 1024**2 < whole
