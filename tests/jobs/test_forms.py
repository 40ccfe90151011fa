"""The new-job form comes from TrainingSpec, field by field."""

from __future__ import annotations

import pytest

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.jobs.forms import FormField, JobForm, all_faults, build_form, parse_form, start_from_preset


def _fields(form: JobForm) -> dict[str, FormField]:
    return {field.name: field for fields in form.groups.values() for field in fields}


def _typed(**changes: str) -> dict[str, str]:
    """What a browser posts for the untouched form, with changes."""
    form = build_form(["tiny"], ["small"], {"base_model": "tiny", "dataset": "small"})
    return {name: field.value for name, field in _fields(form).items()} | {"name": ""} | changes


def test_every_field_of_the_spec_has_a_label_help_and_a_place() -> None:
    form = build_form([], [], {})
    assert set(_fields(form)) == set(TrainingSpec.model_fields)
    assert set(form.groups) == {"model", "method", "basics", "advanced"}
    assert all(field.label and field.help for field in _fields(form).values())


def test_untouched_form_parses_to_the_defaults() -> None:
    assert parse_spec(parse_form(_typed())) == TrainingSpec(base_model="tiny", dataset="small")


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
    fields = _fields(build_form(["tiny"], ["small"], spec.model_dump(mode="json")))
    assert parse_spec(parse_form({name: field.value for name, field in fields.items()})) == spec


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("method", ["lora", "qlora", "full"]),
        ("bf16", ["auto", "true", "false"]),
        ("base_model", ["a", "b"]),
        ("dataset", ["d"]),
    ],
)
def test_closed_fields_offer_their_values(name: str, choices: list[str]) -> None:
    field = _fields(build_form(["a", "b"], ["d"], {}))[name]
    assert list(field.choices or ()) == choices


def test_open_fields_are_text_inputs_and_numbers_say_so() -> None:
    fields = _fields(build_form([], [], {}))
    assert fields["r"].choices is None
    assert fields["r"].numeric
    assert fields["max_steps"].numeric
    assert fields["target_modules"].choices is None
    assert not fields["target_modules"].numeric


def test_every_fault_stands_beside_its_field_and_what_was_typed_stays() -> None:
    typed = _typed(r="-1", learning_rate="fast", max_length="", target_modules=" , ")
    with pytest.raises(InvalidInput) as caught:
        parse_spec(parse_form(typed))
    faults = all_faults(caught.value)
    assert {fault.field for fault in faults} == {"r", "learning_rate", "max_length"}
    fields = _fields(build_form(["tiny"], ["small"], typed, faults))
    assert fields["r"].value == "-1"
    assert fields["learning_rate"].value == "fast"
    assert "greater than or equal to 1" in fields["r"].errors[0]
    assert not fields["lora_alpha"].errors


def test_fault_of_no_field_is_shown_above_the_form() -> None:
    form = build_form([], [], {}, [Fault("nonsense", "unknown field", "Known fields: r.")])
    assert form.errors == ["nonsense: unknown field. Known fields: r."]


def test_a_value_that_is_not_registered_any_more_is_kept_and_advanced_changes_are_counted() -> None:
    form = build_form(["other"], [], {"base_model": "gone", "seed": 7})
    assert list(_fields(form)["base_model"].choices or ()) == ["other", "gone"]
    assert form.advanced_changed == 1


def test_a_preset_fills_in_its_values_and_marks_what_differs_from_it() -> None:
    values = start_from_preset("maximum-quality", {"base_model": "tiny", "name": "night", "r": "3", "seed": "7"})
    form = build_form(["tiny"], ["small"], values)
    fields = _fields(form)
    assert form.preset is not None
    assert (form.preset.key, form.name, fields["base_model"].value) == ("maximum-quality", "night", "tiny")
    assert (fields["r"].value, fields["r"].changed) == ("64", False)
    assert (fields["seed"].value, fields["seed"].changed) == ("7", True)
    typed = {name: field.value for name, field in fields.items()} | {"preset": "maximum-quality", "r": "32"}
    rank = _fields(build_form(["tiny"], ["small"], typed))["r"]
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
    field = _fields(build_form([], [], {"rank_pattern": {"q_proj": 32, "down_proj": 8}}))["rank_pattern"]
    assert (field.choices, field.value, field.changed) == (None, "q_proj: 32, down_proj: 8", True)
