"""One kernel call for all rows: what it is given, when it is taken, and that a GPU without it loses only time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional

from scripts.gpu_check_attention import TOLERANCE, measure_attention
from tests.worker.tiny import make_model, make_tokenizer
from worker.training import varlen
from worker.training.attention import attend_per_row, measure_isolation
from worker.training.varlen import attend_varlen, kernel_works, varlen_suits

pytestmark = pytest.mark.model

LENGTHS = (5, 1, 3)


def flash_by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, starts_of_keys: torch.Tensor,
    longest: int, longest_key: int, *, scale: float | None, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """The kernel's contract in plain PyTorch: (tokens, heads, head_dim) each, rows between `starts`."""
    assert starts.dtype == torch.int32
    assert starts.equal(starts_of_keys)
    assert longest == longest_key == int(starts.diff().max())
    assert window_size == (-1, 0)
    parts = [
        functional.scaled_dot_product_attention(
            *(tensor[start:end].transpose(0, 1) for tensor in (query, key, value)),
            is_causal=True, scale=scale, enable_gqa=enable_gqa,
        ).transpose(0, 1)
        for start, end in zip(starts.tolist(), starts.tolist()[1:], strict=False)
    ]  # fmt: skip
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    kernel_works.cache_clear()
    yield
    kernel_works.cache_clear()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", flash_by_definition)


def _operands(key_heads: int = 2) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    tokens = sum(LENGTHS)
    return (torch.randn(1, 4, tokens, 8), torch.randn(1, key_heads, tokens, 8), torch.randn(1, key_heads, tokens, 8))


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_one_call_gives_what_row_by_row_gives(kernel: None, key_heads: int, scaling: float | None) -> None:
    query, key, value = _operands(key_heads)
    module = torch.nn.Module()
    module.num_key_value_groups = 4 // key_heads
    alone, _ = attend_per_row(module, query, key, value, None, scaling=scaling, row_lengths=LENGTHS)
    torch.testing.assert_close(attend_varlen(query, key, value, LENGTHS, scaling), alone)


def test_a_model_computes_through_the_kernel_and_its_rows_stay_apart(
    kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("worker.training.attention.varlen_suits", lambda *operands: calls.append(operands) or True)
    proof = measure_isolation(make_model(make_tokenizer()))
    assert calls
    assert proof.holds


def test_float32_operands_are_rounded_for_the_kernel_as_autocast_rounds_them_for_sdpa(
    kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every weight is trained, in float32, rotated queries are float32 while values are 16 bits."""
    query, key, value = _operands()
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    with torch.autocast("cpu", torch.bfloat16):
        alone, _ = attend_per_row(module, query, key, value.bfloat16(), None, row_lengths=LENGTHS)
        monkeypatch.setattr("worker.training.attention.varlen_suits", lambda q, _k, v, _d: q.dtype == v.dtype)
        by_kernel, _ = attend_per_row(module, query, key, value.bfloat16(), None, row_lengths=LENGTHS)
    assert by_kernel.dtype == alone.dtype == torch.bfloat16
    torch.testing.assert_close(by_kernel, alone, atol=1e-2, rtol=1e-2)


def test_what_inference_left_behind_can_be_trained_on(kernel: None) -> None:
    query, key, value = _operands()
    lengths = (4, 5)
    with torch.inference_mode():
        attend_varlen(query, key, value, lengths, None)
    assert not varlen._row_ends(lengths, query.device).is_inference()


def _fake(dtype: torch.dtype = torch.bfloat16, head_dim: int = 64, device: str = "cuda") -> torch.Tensor:
    return torch.empty(1, 2, 9, head_dim, dtype=dtype, device=device)


def test_the_kernel_takes_16_bit_operands_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "kernel_works", lambda *_: True)
    with FakeTensorMode():
        suited, other = _fake(), _fake(head_dim=128)
        assert varlen_suits(suited, suited, suited, 0.0)
        assert not varlen_suits(suited, suited, suited, 0.1)
        assert not varlen_suits(suited, suited, other, 0.0)
        assert not varlen_suits(suited, suited, _fake(torch.float16), 0.0)
        for unsuited in (_fake(torch.float32), _fake(head_dim=512), _fake(head_dim=12), _fake(device="cpu")):
            assert not varlen_suits(unsuited, unsuited, unsuited, 0.0)


def test_a_kernel_that_fails_is_tried_once_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail(*_operands: Any, **_options: Any) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(varlen, "varlen_attn", fail)
    with caplog.at_level(logging.WARNING):
        tried = [kernel_works(torch.device("cpu"), torch.float32, 8) for _ in range(2)]
    assert tried == [False, False]
    assert len(calls) == 1
    assert "no kernel image is available" in caplog.text


def test_a_kernel_that_works_forward_and_backward_is_used(kernel: None) -> None:
    assert kernel_works(torch.device("cpu"), torch.float32, 8)


def test_the_gpu_check_tells_a_right_kernel_from_one_that_mixes_rows(
    kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    right = measure_attention(cpu)
    assert right is not None
    assert right <= TOLERANCE
    monkeypatch.setattr(varlen, "varlen_attn", _mixing_rows)
    wrong = measure_attention(cpu)
    assert wrong is not None
    assert wrong > TOLERANCE


def _mixing_rows(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **options: Any) -> torch.Tensor:
    whole = [tensor.transpose(0, 1) for tensor in (query, key, value)]
    return functional.scaled_dot_product_attention(*whole, is_causal=True, enable_gqa=True).transpose(0, 1)
