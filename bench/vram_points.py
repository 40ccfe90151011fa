"""Settings to hold the plan's memory against: LoRA and QLoRA drawn at random, always the same ones, and the rest."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from app.core.planning.logits import Loss

_CONFIGS = Path(__file__).parents[1] / "tests" / "fixtures" / "configs"
_DRAWN = ("llama-3-8b", "llama-3.2-1b", "mistral-7b-v0.1", "qwen2.5-7b", "phi-3-mini")
_LLAMA, _MIXTRAL = "llama-3.2-1b", "mixtral-8x7b"
_BOTH = ({"gradient_checkpointing": True}, {"gradient_checkpointing": False})
_SPECIAL: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "full": [
        *((name, {"method": "full"}) for name in (_LLAMA, "phi-3-mini", "gpt2")),
        ("gemma-2-2b", {"method": "full", "optim": "adamw_torch_fused", "max_length": 2048}),
        (_LLAMA, {"method": "full", "optim": "adamw_torch_fused", "max_length": 4096}),
    ],
    "dpo": [(_LLAMA, {"task": "dpo"}), ("qwen2.5-7b", {"task": "dpo", "method": "qlora"})],
    "dora": [
        *((_LLAMA, {"use_dora": True, "method": method, "lora_dropout": p})
          for method in ("lora", "qlora") for p in (0, 0.05)),
        ("gpt2", {"use_dora": True}),
    ],
    "int8": [(_LLAMA, {"method": "qlora", "load_in_8bit": True}),
             ("mistral-7b-v0.1", {"method": "qlora", "load_in_8bit": True, "lora_dropout": 0})],
    "gpt2": [("gpt2", {}), ("gpt2", {"lora_dropout": 0, "r": 64, "max_length": 1024})],
    "gemma2": [("gemma-2-2b", {}), ("gemma-2-2b", {"method": "qlora", "max_length": 2048})],
    "experts": [(_MIXTRAL, {"lora_dropout": 0}), (_MIXTRAL, {"target_modules": ["q_proj", "v_proj"]}),
                (_MIXTRAL, {"method": "qlora", "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]})],
    "window": [("mistral-7b-v0.1", {"method": "qlora", "max_length": 8192, "per_device_train_batch_size": 1})],
    "modules": [("mistral-7b-v0.1", {"modules_to_save": ["lm_head", "embed_tokens"]}),
                ("qwen2.5-7b", {"bias": "all"}), (_LLAMA, {"gradient_accumulation_steps": 2, "r": 64})],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A model's published configuration, how it is trained, and how the engine or another loss scores it."""

    group: str
    model: str
    values: dict[str, Any] = field(default_factory=dict)
    loss: Loss | None = None
    labelled: float = 0.7  # share of the tokens

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((_CONFIGS / f"{self.model}.json").read_text(encoding="utf-8"))
        return config

    @property
    def spec(self) -> TrainingSpec:
        usual = {"optim": "adamw_torch", "max_length": 512, "per_device_train_batch_size": 2}
        return TrainingSpec(base_model="simulated", dataset="simulated", **{**usual, **self.values})


def list_points(drawn: int) -> Iterator[Point]:
    """So many drawn ones of LoRA and of QLoRA, and all the others, each with checkpointing and without."""
    chance = random.Random(5)
    for method in ("lora", "qlora"):
        for _ in range(drawn):
            yield _draw(chance, method)
    for group, points in _SPECIAL.items():
        for model, values in points:
            for checkpointing in _BOTH:
                yield Point(group, model, {**values, **checkpointing})
    for loss in (Loss.AT_LABELS, Loss.WHOLE, Loss.PLAIN):
        yield Point("losses", _LLAMA, {"gradient_checkpointing": True}, loss)


def _draw(chance: random.Random, method: str) -> Point:
    values = {
        "method": method,
        "r": chance.choice([8, 16, 64]),
        "target_modules": chance.choice(["all-linear", ["o_proj", "down_proj"]]),
        "lora_dropout": chance.choice([0, 0.05]),
        "max_length": chance.choice([256, 512, 1024, 2048]),
        "per_device_train_batch_size": chance.choice([1, 2, 4]),
        "gradient_checkpointing": chance.choice([True, False]),
    }
    return Point(method, chance.choice(_DRAWN), values, labelled=chance.choice([0.4, 0.7, 1.0]))
