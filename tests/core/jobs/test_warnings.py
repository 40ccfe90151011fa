"""Each warning comes where it is due, names its field, and is gone once its fix is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.core.jobs.presets import PRESETS
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.jobs.warnings import Surroundings, fit_warnings, spec_warnings, target_warnings
from app.core.planning.schedule import Past, make_schedule

LLAMA = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
GPT2 = ["c_attn", "c_fc", "c_proj"]
PHI = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
AROUND = Surroundings(LLAMA, positions=2048, cuda=True, bf16=False, disk_needed_bytes=10, disk_free_bytes=100)


def make(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "m", "dataset": "d", **values})


def codes(spec: TrainingSpec, around: Surroundings = AROUND, rows: int | None = 1000) -> list[str]:
    return [warning.code for warning in spec_warnings(spec, make_schedule(spec, rows, Past()), around)]


@pytest.mark.parametrize(
    ("code", "values", "rows"),
    [
        ("attention_only", {"target_modules": ["q_proj", "v_proj"]}, 1000),
        ("alpha", {"r": 16, "lora_alpha": 20}, 1000),
        ("rank", {"r": 256, "lora_alpha": 512}, 1000),
        ("learning_rate", {"learning_rate": 2e-5}, 1000),
        ("learning_rate", {"learning_rate": 1e-3}, 1000),
        ("learning_rate", {"learning_rate": 2e-4, "task": "dpo"}, 1000),
        ("learning_rate", {"learning_rate": 2e-4, "method": "full"}, 1000),
        ("learning_rate", {"learning_rate": 2e-5, "method": "full", "task": "dpo"}, 1000),
        ("batch_exceeds_rows", {"per_device_train_batch_size": 64}, 20),
        ("few_rows", {"max_steps": 10_000}, 1000),
        ("few_rows", {"num_train_epochs": 50}, 1000),
        ("no_eval", {"eval_fraction": 0}, 1000),
        ("max_length", {"max_length": 4096}, 1000),
        ("bf16", {"bf16": True}, 1000),
    ],
)
def test_a_warning_is_gone_once_its_fix_is_taken(code: str, values: dict[str, Any], rows: int) -> None:
    spec = make(**values)
    (warning,) = [w for w in spec_warnings(spec, make_schedule(spec, rows, Past()), AROUND) if w.code == code]

    assert warning.field in TrainingSpec.model_fields
    assert warning.fix
    assert code not in codes(make(**{**values, **warning.fix}), rows=rows)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_presets_give_no_warning(preset: Any) -> None:
    assert codes(make(**preset.values)) == []


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("task", ["sft", "text", "dpo"])
def test_defaults_of_each_method_and_task_give_no_warning(method: str, task: str) -> None:
    assert codes(make(method=method, task=task)) == []


def test_what_is_not_known_is_not_warned_of() -> None:
    spec = make(target_modules=["q_proj"], max_length=100_000, bf16=True)

    assert codes(spec, Surroundings(), rows=None) == []


def test_a_quantised_base_and_a_full_disk_are_named() -> None:
    around = Surroundings(quantised_by="gptq", disk_needed_bytes=5 << 30, disk_free_bytes=2 << 30)
    spec = make()
    base, disk = spec_warnings(spec, make_schedule(spec, 1000, Past()), around)

    assert "gptq" in base.message
    assert "5.0 GiB; 2.0 GiB are free" in disk.message


def test_a_full_disk_has_a_button_only_where_it_would_help() -> None:
    around = Surroundings(disk_needed_bytes=5 << 30, disk_free_bytes=2 << 30)
    fixes = []
    for kept in (2, 1):
        spec = make(save_total_limit=kept)
        (disk,) = spec_warnings(spec, make_schedule(spec, 1000, Past()), around)
        assert "ake room" in disk.message
        fixes.append(disk.fix)
    assert fixes == [{"save_total_limit": 1}, {}]


def test_what_applies_to_adapters_is_not_said_of_whole_models() -> None:
    assert codes(make(method="full"), Surroundings(LLAMA)) == []


def test_fit_is_warned_of_by_degree() -> None:
    (no,) = fit_warnings("does not fit", 30 << 30, 24 << 30, {"per_device_train_batch_size": 1})
    (tight,) = fit_warnings("tight", 23 << 30, 24 << 30, {})

    assert (no.code, tight.code) == ("does_not_fit", "tight")
    assert "30.0 GiB are needed at the peak, 24.0 GiB are there" in no.message
    assert "smaller base model" in fit_warnings("does not fit", 30 << 30, 24 << 30, {})[0].message
    assert fit_warnings("fits", 1, 24 << 30, {}) == []
    assert fit_warnings(None, 1, None, {}) == []


@pytest.mark.parametrize(
    ("targets", "modules"), [(["q_proj", "v_proj"], LLAMA), (["c_attn"], GPT2), (["qkv_proj", "o_proj"], PHI)]
)
def test_attention_alone_is_warned_of_with_the_modules_left_out(targets: list[str], modules: Sequence[str]) -> None:
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
def test_other_choices_are_left_alone(targets: str | list[str], modules: Sequence[str]) -> None:
    assert target_warnings(targets, modules) == []
