"""Dropout on stacked experts is refused before the model is loaded, in the same words everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.experts import STACKED, expert_faults
from app.core.jobs.modules import module_faults
from app.core.jobs.spec import TrainingSpec, parse_spec
from app.core.models.models import BaseModel, ModelStatus

MIXTRAL = "MixtralForCausalLM"


def spec(**values: Any) -> TrainingSpec:
    return parse_spec({"base_model": "mine", "dataset": "small", **values})


def test_dropout_under_all_linear_is_a_fault_with_the_value_that_mends_it() -> None:
    (fault,) = expert_faults(MIXTRAL, spec())
    assert (fault.field, fault.fix) == ("lora_dropout", {"lora_dropout": 0})
    assert expert_faults(MIXTRAL, spec(**fault.fix)) == []


@pytest.mark.parametrize("values", [{"method": "full"}, {"target_modules": ["q_proj"]}, {"lora_dropout": 0}])
def test_what_adapts_no_expert_with_dropout_is_taken(values: dict[str, Any]) -> None:
    assert expert_faults(MIXTRAL, spec(**values)) == []


@pytest.mark.parametrize("architecture", [None, "LlamaForCausalLM", "GptOssForCausalLM"])
def test_other_models_take_dropout(architecture: str | None) -> None:
    assert expert_faults(architecture, spec()) == []


def test_the_fault_is_found_when_a_job_is_submitted_also_beside_others() -> None:
    model = BaseModel(name="mine", status=ModelStatus.READY, architecture=MIXTRAL, created_at=0.0)
    assert expert_faults(MIXTRAL, spec()) == module_faults(spec(), model)
    typed = TrainingSpec.model_construct(base_model="mine", dataset="small", lora_dropout="0")
    assert module_faults(typed, model) == []


def test_the_fix_goes_out_with_the_fault() -> None:
    known = InvalidInput(expert_faults(MIXTRAL, spec())).to_json()["faults"]
    assert known[0]["fix"] == {"lora_dropout": 0}
    assert "fix" not in InvalidInput("wrong", field="r").to_json()["faults"][0]


@pytest.mark.model
def test_the_architectures_are_those_that_peft_and_transformers_know() -> None:
    from peft.utils import transformers_weight_conversion as peft
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    stacked = {
        name
        for name, pattern in peft._MODEL_TO_CONVERSION_PATTERN.items()
        if pattern in peft._MOE_FUSED_TARGETS and pattern in peft._MOE_TARGET_MODULE_MAPPING
    }
    assert {
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name] for name in stacked & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    } == STACKED
