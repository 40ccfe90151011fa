"""What lies beside a saved model's weights."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from worker.artifacts.saving import mend_generation_config

pytestmark = pytest.mark.model


def test_sampling_settings_without_sampling_are_mended() -> None:
    config = GenerationConfig(temperature=0.6, top_p=0.9, do_sample=False)
    mend_generation_config(config, [2, 5])
    config.validate(strict=True)
    assert (config.do_sample, config.temperature, config.eos_token_id) == (True, 0.6, [2, 5])


def test_valid_generation_config_keeps_its_choice() -> None:
    config = GenerationConfig(max_new_tokens=5)
    mend_generation_config(config, [2])
    assert (bool(config.do_sample), config.eos_token_id) == (False, 2)
