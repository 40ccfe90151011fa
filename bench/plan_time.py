"""How long a plan takes, where it fits and where nothing does, for each published config.

`python -m bench.plan_time [--repeats N]`: milliseconds of processor time for each answer of `make_plan`; the median and
the largest of the repeats. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.jobs.spec import parse_spec
from app.core.planning.config import load_config
from app.core.planning.plan import Box, make_plan

CONFIGS = Path(__file__).parents[1] / "tests" / "fixtures" / "configs"
_GIB = 1 << 30
# By name: the card in GiB, and the spec's values. Experts take neither dropout nor `method: full`.
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "fits": (800, {}),
    "tight": (12, {"method": "qlora", "r": 64, "max_length": 2048}),
    "nothing fits": (1, {"max_length": 1024, "per_device_train_batch_size": 64, "gradient_checkpointing": False}),
    "nothing fits, pairs": (1, {"task": "dpo", "per_device_train_batch_size": 64, "gradient_checkpointing": False}),
}


def measure(plan: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and largest, in milliseconds."""
    plan()
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        plan()
        taken.append(1000 * (time.process_time() - begun))
    return statistics.median(taken), max(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=50)
    repeats, medians = parser.parse_args().repeats, {}
    print(f"{'model':<18}{'case':<22}{'median ms':>10}{'largest ms':>12}")
    for path in sorted(CONFIGS.glob("*.json")):
        config = load_config(path)
        for case, (card, values) in CASES.items():
            spec = parse_spec({"base_model": path.stem, "dataset": "d", "lora_dropout": 0, **values})
            box = Box(vram_bytes=card * _GIB)
            median, largest = measure(lambda c=config, s=spec, b=box: make_plan(c, s, b), repeats)  # type: ignore[misc]
            medians[f"{path.stem} {case}"] = median
            print(f"{path.stem:<18}{case:<22}{median:>10.1f}{largest:>12.1f}")
    print(json.dumps({"worst_median_ms": max(medians.values()), "where": max(medians, key=lambda name: medians[name])}))


if __name__ == "__main__":
    main()
