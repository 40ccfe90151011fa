"""Presets are specs that can be trained."""

from __future__ import annotations

import pytest

from app.core.errors import NotFound
from app.core.jobs.presets import PRESETS, Preset, get_preset
from app.core.jobs.spec import parse_spec


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_preset_is_a_valid_spec_within_the_usual_ranges(preset: Preset) -> None:
    spec = parse_spec({"base_model": "tiny", "dataset": "small", **preset.values})
    assert spec.model_dump().items() >= dict(preset.values).items()
    assert spec.lora_alpha in (spec.r, 2 * spec.r)
    assert 0.05 <= spec.lora_dropout <= 0.1
    assert 1e-4 <= spec.learning_rate <= 3e-4
    assert spec.target_modules == "all-linear"


def test_ranks_grow_from_quick_to_best() -> None:
    ranks = [get_preset(key).values["r"] for key in ("quick-test", "balanced", "maximum-quality")]
    assert ranks == sorted(set(ranks))
    assert (ranks[0], 16 <= ranks[1] <= 32, 64 <= ranks[2] <= 128) == (8, True, True)


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        get_preset("fastest")
    assert "fastest" in caught.value.message
    assert all(preset.key in (caught.value.advice or "") for preset in PRESETS)
