"""Configs that are damaged by chance, the same ones in each run: each is planned, or refused at its field."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.planning.config import load_config
from app.core.planning.plan import Box, Data, Plan, make_plan
from tests.core.planning.conftest import CONFIGS

ROUNDS = 60  # of each published config
SPECS = [
    parse_spec({"base_model": "m", "dataset": "d", "lora_dropout": 0, **values})
    for values in (
        {}, {"method": "qlora", "task": "dpo"}, {"method": "full"}, {"use_dora": True}, {"bias": "all"},
        {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"q_proj": 4}}, {"target_modules": ["q_proj", "v_proj"]},
        {"per_device_train_batch_size": 64, "gradient_checkpointing": False, "method": "qlora", "load_in_8bit": True},
    )
]  # fmt: skip
ABSENT = [
    "num_local_experts",
    "sliding_window",
    "head_dim",
    "quantization_config",
    "attn_pdrop",
    "n_inner",
    "model_type",
]


def nested(depth: int) -> list[Any]:
    """Deeper than what a parser of JSON lets through."""
    values: list[Any] = []
    for _ in range(depth):
        values = [values]
    return values


VALUES: list[Any] = [
    0, -1, 1, 2, 7, 10**6, 10**12, 10**400, -(10**12), 2.5, math.nan, math.inf, 1e308, "12", "", True, False, None,
    [], {}, [1], {"quant_method": nested(900)}, nested(900), "x" * 10_000, "\ud800", "mixtral", "gpt2", "gemma2",
]  # fmt: skip


def damaged(name: str) -> Iterator[dict[str, Any]]:
    """The published config with one to four of its values gone or changed."""
    chance, config = random.Random(name), load_config(CONFIGS / f"{name}.json")
    names = sorted({*config, *ABSENT})
    for _ in range(ROUNDS):
        found = dict(config)
        for changed in chance.sample(names, chance.randint(1, 4)):
            found[changed] = chance.choice(VALUES)
            if chance.random() < 0.2:
                del found[changed]
        yield found


def outcome(config: dict[str, Any], spec: TrainingSpec, rows: int) -> Plan | InvalidInput:
    try:
        return make_plan(config, spec, Box(vram_bytes=12 << 30), Data(rows))
    except InvalidInput as refused:
        return refused


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.json")))
def test_a_damaged_config_is_planned_or_refused(name: str) -> None:
    outcomes = [outcome(config, SPECS[number % len(SPECS)], number) for number, config in enumerate(damaged(name))]
    refused = [each for each in outcomes if isinstance(each, InvalidInput)]
    planned = [each for each in outcomes if isinstance(each, Plan)]
    assert refused
    assert planned
    for error in refused:
        assert all(fault.field for fault in error.faults)
        assert len(json.dumps(error.to_json())) < 2_000, "a hostile value is not repeated at length"
    for plan in planned:
        assert 0 < plan.trainable_parameters <= plan.all_parameters
        assert all(size >= 0 for size in (plan.components or {}).values())
        json.dumps(plan.to_json(), allow_nan=False)
