"""The plan of a job, from a config and a spec."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.planning.calibration import Calibration, Residual, calibrate, in_groups
from app.core.planning.config import load_config
from app.core.planning.plan import Box, Data, Plan, make_plan

CONFIGS = Path(__file__).parents[2] / "fixtures" / "configs"
GIB = 1 << 30


def make(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


def plan_of(config: str, box: Box | None = None, **values: Any) -> Plan:
    return make_plan(load_config(CONFIGS / f"{config}.json"), make(**values), box or Box())


TUTORIAL = {"method": "qlora", "r": 64, "lora_alpha": 128, "per_device_train_batch_size": 4, "max_length": 2048}


def test_components_add_up_to_the_peak() -> None:
    plan = plan_of("llama-3-8b", **TUTORIAL)

    assert plan.components is not None
    assert sum(plan.components.values()) == plan.peak_bytes
    assert list(plan.components) == [
        "weights", "adapter", "optimizer", "gradients", "activations", "logits", "overhead",
    ]  # fmt: skip
    assert (plan.trainable_parameters, plan.all_parameters) == (167_772_160, 8_030_261_248 + 167_772_160)
    assert plan.adapter_bytes == 4 * plan.trainable_parameters
    assert plan.fits is None


def test_eight_billion_in_four_bits_are_tight_in_12_gib_and_far_from_it_with_the_usual_loss() -> None:
    plan = plan_of("llama-3-8b", Box(vram_bytes=12 * GIB), **TUTORIAL)

    assert (plan.fits, plan.verdict) == (True, "tight")
    assert plan.peak_bytes_with_plain_loss is not None
    assert plan.peak_bytes_with_plain_loss > 20 * GIB
    assert (plan.peak_bytes, plan.spare_bytes) == (12 * GIB - (plan.spare_bytes or 0), plan.to_json()["spare_bytes"])
    assert plan.spare_bytes_with_plain_loss == 12 * GIB - plan.peak_bytes_with_plain_loss


@pytest.mark.parametrize(
    ("gib", "verdict", "fits"), [(8, "does not fit", False), (12, "tight", True), (24, "fits", True)]
)
def test_is_held_against_a_card(gib: int, verdict: str, fits: bool) -> None:
    plan = plan_of("llama-3-8b", Box(vram_bytes=gib * GIB), **TUTORIAL)

    assert (plan.verdict, plan.fits) == (verdict, fits)
    assert [w.code for w in plan.warnings] == ([] if verdict == "fits" else [verdict.replace(" ", "_")])


def test_the_longest_row_of_the_data_bounds_the_batch() -> None:
    config, spec = load_config(CONFIGS / "llama-3.2-1b.json"), make(max_length=2048)
    whole, short = make_plan(config, spec), make_plan(config, spec, data=Data(longest_row=300))

    assert short.peak_bytes is not None
    assert whole.peak_bytes is not None
    assert short.peak_bytes < whole.peak_bytes
    assert any("300 tokens" in each for each in short.assumptions)


def test_a_card_without_bfloat16_computes_in_float32() -> None:
    box = Box(cuda=True, bf16=False)
    old, new = plan_of("llama-3.2-1b", box), plan_of("llama-3.2-1b")

    assert old.components is not None
    assert new.components is not None
    assert old.components["weights"] == 2 * new.components["weights"]
    assert plan_of("llama-3.2-1b", box, bf16=False).components == old.components


def test_a_quantised_base_is_warned_of() -> None:
    config = {**load_config(CONFIGS / "llama-3.2-1b.json"), "quantization_config": {"quant_method": "awq"}}

    assert "base_quantised" in [w.code for w in make_plan(config, make()).warnings]


def test_takes_a_few_milliseconds() -> None:
    config, spec = load_config(CONFIGS / "llama-3-8b.json"), make(**TUTORIAL)
    make_plan(config, spec)
    began = time.process_time()
    for _ in range(10):
        make_plan(config, spec)

    assert (time.process_time() - began) / 10 < 0.1  # about 4 ms; the bound only keeps weights and torch out


def test_a_calibration_corrects_the_components_and_is_named() -> None:
    plain = plan_of("llama-3-8b", **TUTORIAL)
    assert plain.components is not None
    planned = in_groups(plain.components)
    measured = {name: round(value * (1.5 if name == "overhead" else 1.1)) for name, value in planned.items()}
    calibration = calibrate([Residual(planned, measured)])
    corrected = make_plan(load_config(CONFIGS / "llama-3-8b.json"), make(**TUTORIAL), calibration=calibration)

    assert corrected.components is not None
    assert corrected.components["overhead"] == pytest.approx(1.5 * plain.components["overhead"], rel=1e-6)
    assert corrected.components["activations"] == pytest.approx(1.1 * plain.components["activations"], rel=1e-6)
    assert corrected.calibration == "corrected by 1 finished job of this method on this box"


def test_a_measurement_beyond_reason_corrects_nothing() -> None:
    groups = {"weights": 100, "adapter": 100, "optimizer": 100, "working": 100, "overhead": 100}
    found = calibrate([Residual(groups, {**groups, "overhead": 900, "working": 120})])

    assert found == Calibration({"weights": 1, "adapter": 1, "optimizer": 1, "working": 1.2}, 1)
    assert calibrate([]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable JSON"),
        ("[1]", "does not hold a JSON object"),
        ("{}", "model_type None"),
        ('{"model_type": "resnet"}', "model_type 'resnet'"),
        ('{"model_type": "llama"}', "hidden_size = None"),
        ("[" * 100_000, "not readable JSON"),
        (json.dumps({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 10**12,
                     "intermediate_size": 64, "vocab_size": 64}), "num_hidden_layers = 1000000000000"),
        ('{"model_type": "llama", "hidden_size": NaN, "num_attention_heads": 4}', "hidden_size = nan"),
    ],
)  # fmt: skip
def test_a_config_that_is_none_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInput, match="base_model") as refused:
        make_plan(load_config(tmp_path), make())

    assert message in refused.value.faults[0].message


def test_a_huge_config_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"neither a model folder nor a config\.json"):
        load_config(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(InvalidInput, match="larger than any model's"):
        load_config(tmp_path)
