"""Warnings about specs that can be trained and are probably not meant."""

from __future__ import annotations

import pytest

from app.core.jobs.advice import target_warnings

LLAMA = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
GPT2 = ["c_attn", "c_fc", "c_proj"]
PHI = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


@pytest.mark.parametrize(
    ("targets", "modules"), [(["q_proj", "v_proj"], LLAMA), (["c_attn"], GPT2), (["qkv_proj", "o_proj"], PHI)]
)
def test_attention_alone_is_warned_of_with_the_modules_left_out(targets: list[str], modules: list[str]) -> None:
    (warning,) = target_warnings(targets, modules)
    assert (warning.code, warning.field, warning.fix) == (
        "attention_only",
        "target_modules",
        {"target_modules": "all-linear"},
    )
    assert modules[-2 if modules is GPT2 else 0] in warning.message
    assert not set(targets) & set(warning.message.replace(",", "").replace(";", "").split())


@pytest.mark.parametrize(
    ("targets", "modules"),
    [
        ("all-linear", LLAMA),
        (["q_proj", "up_proj"], LLAMA),
        (["q_proj", "v_proj"], ["k_proj", "q_proj", "v_proj"]),
        (["q_proj"], []),
        ([], LLAMA),
    ],
)
def test_other_choices_are_left_alone(targets: str | list[str], modules: list[str]) -> None:
    assert target_warnings(targets, modules) == []
