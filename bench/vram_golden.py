"""The plan's peaks of LoRA and QLoRA against 60 simulated steps of published models: how far they are off.

`python -m bench.vram_golden` prints a table and one JSON line. The points stand in tests/fixtures/vram_points.json.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.core.jobs.spec import TrainingSpec
from app.core.planning.families import read_architecture
from app.core.planning.layers import Rows
from app.core.planning.peak import Loss, Setting, peak_of_step
from app.core.planning.step import Step, make_step

_FILE = Path(__file__).parents[1] / "tests" / "fixtures" / "vram_points.json"
GOLDEN = json.loads(_FILE.read_text(encoding="utf-8"))


def _predicted(point: dict[str, Any]) -> int:
    architecture = read_architecture(GOLDEN["configs"][point["model"]])
    spec = TrainingSpec(
        base_model="m", dataset="d", method=point["method"], optim="adamw_torch", r=point["r"],
        target_modules=point["target_modules"], lora_dropout=point["lora_dropout"], max_length=point["length"],
        per_device_train_batch_size=point["batch"], gradient_checkpointing=point["gradient_checkpointing"],
    )  # fmt: skip
    loss = Loss.PLAIN if point["loss"] == "whole logits" else Loss.TILED
    step = make_step(architecture, spec, Setting(labelled=point["labelled_fraction"]), loss)
    return peak_of_step(architecture, _as_simulated(step, point)).allocated


def _as_simulated(step: Step, point: dict[str, Any]) -> Step:
    """These points have an adapter in bfloat16 beside weights of 4 bits, and padded rows have a mask."""
    step = replace(step, rows=Rows(point["batch"], point["length"], joined=point["padded"], mask=point["padded"]))
    if point["method"] == "lora":
        return step
    tensors = tuple(replace(tensor, width=2) for tensor in step.tensors)
    return replace(step, tensors=tensors, learning=replace(step.learning, adapter=2))


def find_errors() -> list[float]:
    """Of each point, as shares; below 0 where the plan has less."""
    return [_predicted(point) / point["peak_allocated_bytes"] - 1 for point in GOLDEN["points"]]


def main() -> None:
    found = [(point, abs(error)) for point, error in zip(GOLDEN["points"], find_errors(), strict=True)]
    for method in ("lora", "qlora", None):
        group = [error for point, error in found if method in (None, point["method"])]
        median, worst = statistics.median(group), max(group)
        print(f"{method or 'all':<6}{len(group):>3} points, median {median:.2%}, worst {worst:.2%}")
    print(json.dumps({"points": len(found), "median_error": median, "worst_error": worst}))


if __name__ == "__main__":
    main()
