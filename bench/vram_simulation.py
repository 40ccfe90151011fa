"""The plan's peak of a training step beside a simulated one: whole models of any size, without a GPU.

    python -m bench.vram_simulation [--points 12] [--group full]

Exits with 1 where the plan of LoRA or QLoRA is off by more than 2.5 %, or of anything else by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections import defaultdict

from app.core.planning.families import read_architecture
from app.core.planning.logits import choose_loss
from app.core.planning.peak import Setting, peak_of
from bench.vram_points import Point, list_points
from bench.vram_step import simulate

_TOLERANCES = {"lora": 0.025, "qlora": 0.025}
_TOLERANCE = 0.05


def compare(point: Point) -> float:
    """Print the point's row and return the plan's relative error."""
    architecture, spec = read_architecture(point.config), point.spec
    loss = point.loss or choose_loss(architecture, spec.modules_to_save)
    planned = peak_of(architecture, spec, Setting(labelled=point.labelled), loss=loss).allocated
    simulated = simulate(point.config, spec, loss, point.labelled)
    error = planned / simulated - 1
    batch = f"{spec.per_device_train_batch_size} x {spec.max_length}"
    checkpointing = "on" if spec.gradient_checkpointing is True else "off"
    print(
        f"{point.group:8} {point.model:16} {spec.method:6} {batch:>9} r={spec.r:<3} {checkpointing:4} {loss:9} "
        f"{simulated / 2**30:8.2f} GiB {error:+7.2%}",
        flush=True,
    )
    return error


def main() -> None:
    warnings.simplefilter("ignore", FutureWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--group", action="append")
    arguments = parser.parse_args()
    errors: dict[str, list[float]] = defaultdict(list)
    for point in list_points(arguments.points):
        if not arguments.group or point.group in arguments.group:
            errors[point.group].append(abs(compare(point)))
    for group, found in errors.items():
        print(f"{group:8} {len(found):3} points, median {statistics.median(found):.2%}, worst {max(found):.2%}")
    everything = [error for found in errors.values() for error in found]
    figures = {"points": len(everything), "median_error": statistics.median(everything), "worst_error": max(everything)}
    print(json.dumps(figures))
    sys.exit(any(max(found) > _TOLERANCES.get(group, _TOLERANCE) for group, found in errors.items()))


if __name__ == "__main__":
    main()
