"""The new-job form comes from TrainingSpec, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.jobs.fields import FormField
from app.jobs.forms import (
    JobForm,
    build_form,
    choice_moved_on,
    follow_choice,
    parse_form,
    start_from_preset,
)

NEEDED = {"base_model": "tiny", "dataset": "small"}
LORA = {"r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "bias", "rank_pattern"}
QUANTISATION = {"load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"}


def _build(values: Mapping[str, Any], faults: Sequence[Fault] = ()) -> JobForm:
    return build_form({"tiny": "tiny"}, {"small": "small (messages)"}, values, faults)


def _fields(form: JobForm) -> dict[str, FormField]:
    return form.fields


def _typed(values: Mapping[str, Any] = NEEDED, **changes: str) -> dict[str, str]:
    """What a browser posts for the untouched form of these values, with changes."""
    form = _build(values)
    hidden = {"name": "", "preset": form.preset.key if form.preset else "", "shown_for": form.shown_for, **form.kept}
    return {name: field.value for name, field in form.fields.items()} | hidden | changes


def test_every_field_of_the_spec_has_a_label_help_and_a_place() -> None:
    shown: dict[str, FormField] = {}
    for method in ("lora", "qlora", "full"):
        for task in ("sft", "dpo", "text"):
            shown |= _fields(_build({"method": method, "task": task}))
    assert set(shown) == set(TrainingSpec.model_fields)
    assert all(field.label and field.help for field in shown.values())


@pytest.mark.parametrize(
    ("method", "task", "there", "away"),
    [
        ("lora", "sft", LORA | {"packing"}, QUANTISATION | {"beta"}),
        ("qlora", "dpo", LORA | QUANTISATION | {"beta"}, {"packing"}),
        ("full", "text", {"learning_rate", "packing", "overlong_rows"}, LORA | QUANTISATION | {"beta"}),
    ],
)
def test_only_fields_that_apply_are_shown(method: str, task: str, there: set[str], away: set[str]) -> None:
    shown = set(_fields(_build({"method": method, "task": task})))
    assert there <= shown
    assert not away & shown


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("task", ["sft", "dpo", "text"])
def test_an_untouched_form_posts_the_defaults_of_its_method_and_task(method: str, task: str) -> None:
    chosen = {**NEEDED, "method": method, "task": task}
    assert TrainingSpec(**parse_form(_typed(chosen))) == TrainingSpec(**chosen)
    assert not [field.name for field in _fields(_build(chosen)).values() if field.changed and field.name not in chosen]


def test_a_choice_brings_its_defaults_where_nobody_changed_them() -> None:
    moved = follow_choice(_typed(method="full", seed="7"))
    fields = _fields(_build(moved))
    assert (fields["learning_rate"].value, fields["learning_rate"].changed) == ("2e-05", False)
    assert (fields["seed"].value, fields["seed"].changed) == ("7", True)
    assert (fields["method"].value, fields["method"].changed) == ("full", True)
    kept = _fields(_build(follow_choice(_typed(method="full", learning_rate="1e-3"))))["learning_rate"]
    assert (kept.value, kept.baseline) == ("1e-3", "2e-05")


def test_what_another_method_has_no_use_for_is_not_posted_and_comes_back_with_the_first() -> None:
    away = _build(follow_choice(_typed(r="64", method="full")))
    assert away.kept == {"kept.r": "64"}
    posted = _typed(follow_choice(_typed(r="64", method="full")))
    assert "r" not in parse_form(posted)
    back = _fields(_build(follow_choice(posted | {"method": "lora"})))
    assert (back["r"].value, back["r"].changed, back["lora_alpha"].changed) == ("64", True, False)


def test_a_preset_speaks_for_its_own_method_and_for_sft() -> None:
    start = start_from_preset("balanced", NEEDED)
    assert _fields(_build(start))["learning_rate"].baseline == "0.0002"
    assert _fields(_build(start | {"method": "qlora"}))["learning_rate"].baseline == "0.0002"
    assert _fields(_build(start | {"method": "full"} | {"learning_rate": "1"}))["learning_rate"].baseline == "2e-05"
    assert _fields(_build(start | {"task": "dpo"} | {"learning_rate": "1"}))["learning_rate"].baseline == "5e-05"
    followed = follow_choice(_typed(start, task="dpo"))
    rate = _fields(_build(followed))["learning_rate"]
    assert (rate.value, rate.changed) == ("5e-05", False)
    applied = _fields(_build(start_from_preset("balanced", {**NEEDED, "task": "dpo", "learning_rate": "1"})))
    rate = applied["learning_rate"]
    assert (rate.value, rate.changed) == ("5e-05", False), "the preset was taken after the task"


def test_a_choice_made_after_the_fields_were_shown_is_noticed() -> None:
    assert not choice_moved_on(_typed())
    assert choice_moved_on(_typed(method="full"))
    assert choice_moved_on(_typed(task="dpo"))
    assert not choice_moved_on({"method": "full"}), "who posts without the form has seen no fields"


def test_untouched_form_parses_to_the_defaults() -> None:
    assert parse_spec(parse_form(_typed())) == TrainingSpec(**NEEDED)


def test_a_spec_survives_the_way_through_the_form() -> None:
    spec = TrainingSpec(
        base_model="tiny",
        dataset="small",
        target_modules=["q_proj", "v_proj"],
        max_steps=7,
        learning_rate=3.5e-5,
        bf16=False,
        gradient_checkpointing=True,
        modules_to_save=["lm_head", "embed_tokens"],
        rank_pattern={"q_proj": 32, r"layers\.0\.mlp\.up_proj": 8},
        alpha_pattern={"q_proj": 0.5},
        early_stopping_patience=3,
    )
    fields = _fields(_build(spec.model_dump(mode="json")))
    assert parse_spec(parse_form({name: field.value for name, field in fields.items()})) == spec


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("method", ["lora", "qlora", "full"]),
        ("bf16", ["auto", "true", "false"]),
        ("base_model", ["tiny"]),
        ("dataset", ["small"]),
    ],
)
def test_closed_fields_offer_their_values(name: str, choices: list[str]) -> None:
    field = _fields(_build({}))[name]
    assert list(field.choices or ()) == choices


def test_open_fields_are_text_inputs_and_numbers_say_so() -> None:
    fields = _fields(_build({}))
    assert fields["r"].choices is None
    assert fields["r"].numeric
    assert fields["max_steps"].numeric
    assert fields["target_modules"].choices is None
    assert not fields["target_modules"].numeric


def test_every_fault_stands_beside_its_field_and_what_was_typed_stays() -> None:
    typed = _typed(r="-1", learning_rate="fast", max_length="", target_modules=" , ")
    with pytest.raises(InvalidInput) as caught:
        parse_spec(parse_form(typed))
    faults = caught.value.faults
    assert {fault.field for fault in faults} == {"r", "learning_rate", "max_length"}
    fields = _fields(_build(typed, faults))
    assert fields["r"].value == "-1"
    assert fields["learning_rate"].value == "fast"
    assert "greater than or equal to 1" in fields["r"].errors[0]
    assert not fields["lora_alpha"].errors


def test_fault_of_no_field_is_shown_above_the_form() -> None:
    form = _build({}, [Fault("nonsense", "unknown field", "Known fields: r.")])
    assert form.errors == ["nonsense: unknown field. Known fields: r."]


def test_a_fault_is_shown_without_the_marks_of_code() -> None:
    fields = _fields(_build({}, [Fault("packing", "turn it off for `task: dpo`", "Or use `task: sft`.")]))
    assert fields["packing"].errors == ["turn it off for task: dpo. Or use task: sft."]


def test_a_value_that_is_not_registered_any_more_is_kept_and_advanced_changes_are_counted() -> None:
    form = _build({"base_model": "gone", "seed": 7, "weight_decay": 0.1})
    assert list(_fields(form)["base_model"].choices or ()) == ["tiny", "gone"]
    assert {group.legend: group.changed for group in form.groups if group.changed} == {"Optimizer and schedule": 2}


def test_a_preset_fills_in_its_values_and_marks_what_differs_from_it() -> None:
    values = start_from_preset("maximum-quality", {"base_model": "tiny", "name": "night", "r": "3", "seed": "7"})
    form = _build(values)
    fields = _fields(form)
    assert form.preset is not None
    assert (form.preset.key, form.name, fields["base_model"].value) == ("maximum-quality", "night", "tiny")
    assert (fields["r"].value, fields["r"].changed) == ("64", False)
    assert (fields["seed"].value, fields["seed"].changed) == ("7", True)
    typed = {name: field.value for name, field in fields.items()} | {"preset": "maximum-quality", "r": "32"}
    rank = _fields(_build(typed))["r"]
    assert (rank.value, rank.baseline, rank.changed) == ("32", "64", True)
    assert parse_spec(parse_form(typed | {"dataset": "small"})).r == 32


def test_another_preset_takes_back_what_the_first_one_decided() -> None:
    first = start_from_preset("maximum-quality", {"base_model": "tiny"})
    assert first["use_rslora"] is True
    assert "use_rslora" not in start_from_preset("balanced", first)


@pytest.mark.parametrize("typed", ["q_proj", "q_proj: 4, 8", "q_proj: many", "q_proj:", ": 4"])
def test_a_pattern_of_another_form_is_refused_at_its_field(typed: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_spec(parse_form(_typed(rank_pattern=typed)))
    assert {fault.field for fault in caught.value.faults} == {"rank_pattern"}


def test_patterns_are_text_inputs() -> None:
    field = _fields(_build({"rank_pattern": {"q_proj": 32, "down_proj": 8}}))["rank_pattern"]
    assert (field.choices, field.value, field.changed) == (None, "q_proj: 32, down_proj: 8", True)
