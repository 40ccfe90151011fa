"""Whose file it is, and what no YAML reader should take."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.recipes import axolotl, llama_factory
from app.core.jobs.recipes.read import read_recipe
from app.core.jobs.spec import TrainingSpec, parse_spec, read_yaml


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("base_model: a\nmicro_batch_size: 1\nnum_epochs: 2", "axolotl"),
        ("model_name_or_path: a\nstage: sft", "LLaMA-Factory"),
        ("base_model: a\ndataset: b\nr: 8", "Loradeck"),
        ("base_model: a\ndataset: b\nr: 8\nadapter: lora", "Loradeck"),
        ("{}", "Loradeck"),
    ],
)
def test_a_file_is_recognised_by_its_keys(text: str, program: str) -> None:
    assert read_recipe(text).program == program


def test_the_source_that_is_named_goes_before_what_is_recognised() -> None:
    assert read_recipe("base_model: a", "axolotl").program == "axolotl"
    with pytest.raises(InvalidInput, match="none of auto, loradeck, axolotl, llama-factory"):
        read_recipe("base_model: a", "unsloth")


def test_a_spec_comes_back_from_its_own_yaml() -> None:
    spec = parse_spec(
        {
            "base_model": "tiny",
            "dataset": "small",
            "method": "qlora",
            "learning_rate": 1e-6,
            "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": {"q_proj": 32},
            "sample_prompts": ["Who: 'you'?\nSay\\n so.", "ünïcode 🐟, # no comment"],
            "max_steps": None,
        }
    )
    recipe = read_recipe(spec.to_yaml())
    assert recipe.program == "Loradeck"
    assert parse_spec(recipe.values) == spec
    assert set(recipe.values) == set(TrainingSpec.model_fields)


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "an alias of a list or a mapping"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "an alias of a list or a mapping"),
        ("x: &x 1\n" + "".join(f"k{n}: *x\n" for n in range(70)), "too many aliases"),
        ("a: '" + "x" * 300_000 + "'", "256"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("[" * 5000, "nested too deeply"),
        ("- 1", "mapping"),
        ("a: 1\na: 2", "stands twice"),
    ],
)
def test_what_no_reader_should_take_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_yaml(text)
    assert words in caught.value.message.replace("262,144", "256")


def test_an_alias_of_a_number_is_taken() -> None:
    assert read_yaml("lora_alpha: &n 16\nr: *n") == {"lora_alpha": 16, "r": 16}


def test_the_table_of_keys_names_every_key_that_is_taken_over() -> None:
    text = (Path(__file__).parents[4] / "docs" / "importing.md").read_text()
    for table in (axolotl._SAME, axolotl._SAME_OF_LORA, llama_factory._SAME, llama_factory._SAME_OF_LORA):
        for key, target in table.items():
            assert f"`{key}`" in text, key
            assert f"`{target}`" in text, target
