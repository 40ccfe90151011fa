"""TrainingSpec refuses what cannot be trained, says every fault at once, and survives YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.errors import InvalidInput
from app.core.jobs.spec import TrainingSpec, parse_spec, parse_yaml

NEEDED = {"base_model": "tiny", "dataset": "small"}
# The job YAML that users are promised, as far as this version goes.
PROMISED = """
base_model: smollm2-135m-instruct
dataset: demo
eval_fraction: 0.05
task: sft
method: lora
r: 16
lora_alpha: 32
lora_dropout: 0.05
target_modules: all-linear
max_length: 512
per_device_train_batch_size: 4
gradient_accumulation_steps: 1
num_train_epochs: 1
max_steps: null
learning_rate: 2.0e-4
lr_scheduler_type: cosine
warmup_ratio: 0.03
optim: adamw_torch
bf16: auto
gradient_checkpointing: auto
seed: 42
logging_steps: 1
eval_steps: 50
save_steps: 50
save_total_limit: 2
"""
# field: (values that are the last to be taken, values that are the first to be refused)
BOUNDS: dict[str, tuple[list[Any], list[Any]]] = {
    "eval_fraction": ([0, 0.5], [-0.01, 0.51]),
    "r": ([1, 1024], [0, -1, 1025]),
    "lora_alpha": ([0.001, 4096], [0, -1, 4097]),
    "lora_dropout": ([0, 0.999], [-0.01, 1]),
    "max_length": ([8, 1_048_576], [7, 1_048_577]),
    "per_device_train_batch_size": ([1, 4096], [0, 4097]),
    "gradient_accumulation_steps": ([1, 4096], [0, 4097]),
    "num_train_epochs": ([0.001, 1000], [0, 1001]),
    "max_steps": ([None, 1, 10_000_000], [0, 10_000_001]),
    "eval_max_rows": ([None, 1, 10_000_000], [0, 10_000_001]),
    "learning_rate": ([1e-12, 1], [0, -1e-4, 1.01]),
    "warmup_ratio": ([0, 0.999], [-0.01, 1]),
    "weight_decay": ([0, 1], [-0.01, 1.01]),
    "max_grad_norm": ([1e-9, 1e9], [0, -1]),
    "seed": ([0, 2**32 - 1], [-1, 2**32]),
    "logging_steps": ([1, 10**9], [0]),
    "eval_steps": ([1, 10**9], [0]),
    "save_steps": ([1, 10**9], [0]),
    "save_total_limit": ([1, 1000], [0, 1001]),
    "sample_max_new_tokens": ([0, 1024], [-1, 1025]),
    "early_stopping_patience": ([None, 1, 1000], [0, 1001]),
    "beta": ([0.001, 10], [0, 10.1]),
}
NUMBERS = sorted(BOUNDS)
CHOICES = {
    "use_rslora",
    "use_dora",
    "packing",
    "overlong_rows",
    "task",
    "method",
    "lr_scheduler_type",
    "optim",
    "bf16",
    "gradient_checkpointing",
    "target_modules",
    "init_lora_weights",
    "bias",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "probe",
}
COLLECTIONS = {"modules_to_save", "rank_pattern", "alpha_pattern", "sample_prompts"}  # sample_prompts: tests/core/chats


def _faults(**values: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        parse_spec({**NEEDED, **values})
    return {fault.field: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"load_in_8bit": True}, "load_in_8bit", "needs `method: qlora`"),
        ({"method": "qlora", "load_in_8bit": True, "use_dora": True}, "use_dora", "of 4 bits and not of 8"),
        ({"method": "qlora", "init_lora_weights": "pissa"}, "init_lora_weights", "holds quantised"),
        ({"method": "full", "use_dora": True}, "use_dora", "belongs to LoRA"),
        ({"task": "dpo", "packing": True}, "packing", "pairs cannot be packed"),
        ({"overlong_rows": "split"}, "overlong_rows", "only plain text"),
    ],
)
def test_what_cannot_go_together_is_refused_at_the_field_to_change(
    values: dict[str, Any], field: str, message: str
) -> None:
    assert message in _faults(**values)[field]


def test_faults_of_one_field_and_of_several_come_together() -> None:
    assert set(_faults(r=0, load_in_8bit=True)) == {"r", "load_in_8bit"}
    assert set(_faults(method="qlorra", load_in_8bit=True)) == {"method"}  # it may well be meant for QLoRA


def test_what_is_not_given_follows_method_and_task() -> None:
    spec = TrainingSpec(**NEEDED, method="qlora", task="text")
    assert (spec.optim, spec.overlong_rows) == ("paged_adamw_8bit", "split")
    assert TrainingSpec(**NEEDED, method="full").learning_rate == 2e-5
    assert TrainingSpec(**NEEDED, method="full", learning_rate=1e-3).learning_rate == 1e-3
    assert TrainingSpec(**NEEDED, method="full", task="dpo").learning_rate == 1e-6


def test_each_field_is_covered_here() -> None:
    assert set(BOUNDS) | CHOICES | COLLECTIONS | set(NEEDED) | {"init_adapter"} == set(TrainingSpec.model_fields)


@pytest.mark.parametrize("field", NUMBERS)
def test_bounds(field: str) -> None:
    taken, refused = BOUNDS[field]
    for value in taken:
        assert getattr(parse_spec({**NEEDED, field: value}), field) == value
    for value in refused:
        assert list(_faults(**{field: value})) == [field]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, True, "many", [1], {}], ids=repr)
def test_what_is_no_finite_number_is_refused(field: str, value: Any) -> None:
    assert list(_faults(**{field: value})) == [field]


@pytest.mark.parametrize("field", sorted(CHOICES))
def test_unknown_choices_are_refused(field: str) -> None:
    assert list(_faults(**{field: {"no": "choice"}})) == [field]
    if field != "target_modules":
        message = _faults(**{field: "maybe-not"})[field]
        assert "'maybe-not'" in message


@pytest.mark.parametrize("field", ["bf16", "gradient_checkpointing"])
def test_auto_and_booleans_are_choices(field: str) -> None:
    for value in ("auto", True, False):
        assert getattr(parse_spec({**NEEDED, field: value}), field) is value or value == "auto"


def test_target_modules_are_all_or_a_list() -> None:
    assert parse_spec({**NEEDED, "target_modules": ["q_proj", "v_proj"]}).target_modules == ["q_proj", "v_proj"]
    assert "target_modules" in _faults(target_modules=["q_proj", 5])
    assert "target_modules" in _faults(target_modules="q_proj")


@pytest.mark.parametrize("field", sorted(NEEDED))
def test_model_and_dataset_are_required(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec({name: value for name, value in NEEDED.items() if name != field})
    assert [(fault.field, fault.message) for fault in caught.value.faults] == [(field, "is required")]
    assert list(_faults(**{field: ""})) == [field]


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("lr", "Did you mean learning_rate?"),
        ("lora_alhpa", "Did you mean lora_alpha?"),
        ("zzzzzz", "Known fields: base_model, dataset, "),
    ],
)
def test_an_unknown_key_is_named_with_what_was_probably_meant_or_the_known_ones(typed: str, advice: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec({**NEEDED, typed: 1})
    (fault,) = caught.value.faults
    assert (fault.field, fault.message) == (typed, "unknown field")
    assert str(fault.advice).startswith(advice)


def test_every_fault_is_named_at_once() -> None:
    faults = _faults(r=0, learning_rate=-1, max_length="long", lr=1, task="rl")
    assert set(faults) == {"r", "learning_rate", "max_length", "lr", "task"}
    assert "greater than or equal to 1" in faults["r"]
    assert "'long'" in faults["max_length"]


@pytest.mark.parametrize(
    ("field", "value", "messages"),
    [
        ("target_modules", "q_proj", ["Input should be 'all-linear' or a valid list (got 'q_proj')"]),
        ("target_modules", [5], ["Input should be a valid string (got 5)"]),
        ("bf16", "maybe", ["Input should be 'auto' or a valid boolean, unable to interpret input (got 'maybe')"]),
        (
            "rank_pattern",
            {"q": 0, "k": 0},
            [f"{name}: Input should be greater than or equal to 1 (got 0)" for name in "qk"],
        ),
    ],
)
def test_a_wrong_value_is_one_fault_however_many_types_it_could_have(
    field: str, value: Any, messages: list[str]
) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec({**NEEDED, field: value})
    assert [(fault.field, fault.message) for fault in caught.value.faults] == [(field, each) for each in messages]


def test_a_spec_cannot_be_changed() -> None:
    spec = parse_spec(NEEDED)
    with pytest.raises(ValueError, match="frozen"):
        spec.r = 8


def test_yaml_round_trip() -> None:
    values = {**NEEDED, "base_model": "mô hình", "target_modules": ["q_proj"], "bf16": False, "max_steps": 7, "r": 3}
    spec = parse_spec(values)
    assert parse_yaml(spec.to_yaml()) == spec
    assert "mô hình" in spec.to_yaml()
    assert list(yaml.safe_load(spec.to_yaml())) == list(TrainingSpec.model_fields)


def test_the_promised_yaml_is_the_defaults() -> None:
    spec = parse_yaml(PROMISED)
    assert spec == parse_spec({"base_model": "smollm2-135m-instruct", "dataset": "demo"})


def test_a_rate_without_a_dot_is_a_number() -> None:
    """YAML 1.1 takes 2e-4 for text."""
    assert parse_yaml("base_model: m\ndataset: d\nlearning_rate: 2e-4").learning_rate == 2e-4


@pytest.mark.parametrize("text", ["", "- a\n- b", "just text", "null"])
def test_yaml_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="yaml: A job YAML is a mapping"):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["r: [1", "r: 'open", "\x00", "!!python/object/apply:os.system ['touch owned']", "a: 2026-13-45", "[" * 2_000],
    ids=["bracket", "quote", "nul", "python", "date", "deep"],
)
def test_broken_or_hostile_yaml_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="yaml: This is not valid YAML"):
        parse_yaml(text)
    assert list(tmp_path.iterdir()) == []


def test_an_alias_bomb_is_refused_in_few_words() -> None:
    """Ten aliases of ten aliases of …: small as YAML, 10 ** 8 texts when printed."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(InvalidInput) as caught:
        parse_yaml("\n".join([*levels, "r: *a7", "base_model: *a7"]))
    assert [fault.field for fault in caught.value.faults] == ["yaml"]
    assert len(caught.value.message) < 500


def test_values_in_messages_are_cut_short() -> None:
    assert len(_faults(r="9" * 100_000)["r"]) < 300


def test_ids_may_be_numbers() -> None:
    spec = parse_spec({"base_model": 3, "dataset": 12})
    assert (spec.base_model, spec.dataset) == ("3", "12")


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("modules_to_save", [[], ["lm_head"]], ["lm_head", [5], {}]),
        (
            "rank_pattern",
            [{}, {"q_proj": 1, r"layers\.0": 1024}],
            [[], {"q": 0}, {"q": 1025}, {"q": True}, {"(": 4}, {"q{99999999999}": 4}],
        ),
        ("alpha_pattern", [{}, {"q_proj": 0.5}], ["q_proj", {"q": 0}, {"q": 4097}, {"q": math.nan}, {"": 4}]),
    ],
)
def test_collections(field: str, taken: list[Any], refused: list[Any]) -> None:
    for value in taken:
        assert getattr(parse_spec({**NEEDED, field: value}), field) == value
    for value in refused:
        assert list(_faults(**{field: value})) == [field], value


def test_fields_that_cannot_go_together_are_all_told_at_once() -> None:
    faults = _faults(
        init_lora_weights="orthogonal",
        r=7,
        rank_pattern={"q_proj": 3},
        target_modules=["q_proj"],
        modules_to_save=["q_proj", "lm_head"],
        early_stopping_patience=2,
        eval_fraction=0,
    )
    assert list(faults) == ["r", "rank_pattern", "modules_to_save", "early_stopping_patience"]
    assert "got 7" in faults["r"]
    assert "target_modules: q_proj;" in faults["modules_to_save"]


def test_fields_that_go_together_are_taken() -> None:
    for values in (
        {"init_lora_weights": "orthogonal", "r": 8, "rank_pattern": {"q_proj": 4}},
        {"init_lora_weights": "pissa", "r": 7},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"early_stopping_patience": 2},
    ):
        assert parse_spec({**NEEDED, **values})


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidInput, match="'r' stands twice") as caught:
        parse_yaml("base_model: m\ndataset: d\nr: 8\nr: 16\n")
    assert "line 4" in caught.value.message
