"""Models of experts, whose experts transformers holds as stacked tensors: what LoRA cannot do with them."""

from __future__ import annotations

from pydantic import TypeAdapter

from app.core.errors import Fault
from app.core.jobs.spec import TrainingSpec

# Architectures whose experts peft adapts under all-linear. Source: peft.utils.transformers_weight_conversion.
STACKED = frozenset(
    {
        "AfmoeForCausalLM",
        "BeamForCausalLM",
        "Cohere2MoeForCausalLM",
        "DeepseekV2ForCausalLM",
        "DeepseekV32ForCausalLM",
        "DeepseekV3ForCausalLM",
        "Dots1ForCausalLM",
        "Ernie4_5_MoeForCausalLM",
        "ExaoneMoeForCausalLM",
        "FlexOlmoForCausalLM",
        "Glm4MoeForCausalLM",
        "Glm4MoeLiteForCausalLM",
        "GlmMoeDsaForCausalLM",
        "HunYuanMoEV1ForCausalLM",
        "LongcatFlashForCausalLM",
        "MellumForCausalLM",
        "MiniMaxForCausalLM",
        "MiniMaxM2ForCausalLM",
        "MixtralForCausalLM",
        "OlmoeForCausalLM",
        "Qwen3MoeForCausalLM",
        "Qwen3NextForCausalLM",
        "SolarOpenForCausalLM",
    }
)
_RATE = TypeAdapter(float)
_ADVICE = "Set lora_dropout to 0, or name target modules, such as q_proj, k_proj, v_proj, o_proj."


def expert_faults(architecture: str | None, spec: TrainingSpec) -> list[Fault]:
    """Dropout on adapters of stacked experts, which peft refuses once the model is loaded."""
    if architecture not in STACKED or spec.method == "full" or spec.target_modules != "all-linear":
        return []
    if _RATE.validate_python(spec.lora_dropout) == 0:  # as it was typed, where another field is at fault
        return []
    message = "must be 0 here: with all-linear peft adapts the experts too, and of these no input can be dropped"
    return [Fault("lora_dropout", message, _ADVICE, fix={"lora_dropout": 0})]
