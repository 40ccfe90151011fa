"""The plan's peak beside live bytes: of real steps on the CPU, and of a simulated one of a whole model.

All of them: `python -m bench.vram_cpu_steps` and `python -m bench.vram_simulation`.
"""

from __future__ import annotations

from typing import Any

import pytest

TINY = {
    "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 352, "vocab_size": 1024, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.mark.model
@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({}, {"gradient_checkpointing": True}),
        ({}, {"gradient_checkpointing": False, "r": 64, "optim": "adamw_torch_fused"}),
        ({}, {"method": "full", "gradient_checkpointing": False}),
        ({}, {"task": "dpo", "gradient_checkpointing": False}),
        ({}, {"use_dora": True, "gradient_checkpointing": False}),
        ({"model_type": "gemma2", "head_dim": 32}, {"gradient_checkpointing": False}),
    ],
    ids=str,
)
def test_a_real_step_takes_what_is_planned(config: dict[str, Any], values: dict[str, Any]) -> None:
    from bench.vram_cpu_steps import make_spec, measure, predict

    spec = make_spec(max_length=64, **values)
    assert predict({**TINY, **config}, spec, 0.7) == pytest.approx(measure({**TINY, **config}, spec, 0.7), rel=0.05)


@pytest.mark.model
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_whole_model_in_four_bits_takes_what_is_planned() -> None:
    from app.core.planning.families import read_architecture
    from app.core.planning.peak import Setting, peak_of
    from bench.vram_points import Point
    from bench.vram_step import simulate

    point = Point("qlora", "llama-3.2-1b", {"method": "qlora", "gradient_checkpointing": True})
    planned = peak_of(read_architecture(point.config), point.spec, Setting(labelled=0.7)).allocated
    assert planned == pytest.approx(simulate(point.config, point.spec, labelled=0.7), rel=0.025)
