"""An adapter's configuration, as peft writes it, in the fields of a job's spec. No database: a child needs it, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
AGREEING: Mapping[str, Callable[[Any], Any]] = {  # fields that decide the tensors, each in the form it is compared in
    "r": int,
    "lora_alpha": float,
    "use_rslora": bool,
    "use_dora": bool,
    "bias": str,
    "modules_to_save": lambda names: sorted(names or ()),
    "rank_pattern": lambda pattern: {name: int(rank) for name, rank in (pattern or {}).items()},
    "alpha_pattern": lambda pattern: {name: float(alpha) for name, alpha in (pattern or {}).items()},
}
UNSAID = (  # what peft knows and a spec cannot say
    "layers_to_transform", "layer_replication", "exclude_modules", "target_parameters", "trainable_token_indices",
    "lora_bias", "alora_invocation_tokens", "use_qalora", "arrow_config",
)  # fmt: skip


def spec_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a training that starts from the adapter must say of it; what is off in it is left out."""
    fields = {name: form(config[name]) for name, form in AGREEING.items() if config.get(name)}
    targets = config.get("target_modules")
    if isinstance(targets, list):
        fields["target_modules"] = sorted(map(str, targets))
    return {name: value for name, value in fields.items() if (name, value) != ("bias", "none")}
