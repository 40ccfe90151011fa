"""What LoRA's fields name and the model does not have is refused when the job is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.core.jobs.modules import module_faults
from app.core.jobs.spec import parse_spec
from app.core.jobs.submit import check_references
from app.core.models.inspect import inspect_folder
from app.core.models.models import BaseModel, ModelStatus
from app.core.models.registry import set_facts
from tests.core.models.safetensors import SHAPES, write_model

HEAD = {"lm_head.weight": [100, 8]}
MORE_NORMS = {"model.layers.0.post_attention_layernorm.weight": [8]}


def _model(folder: Path, shapes: dict[str, list[int]] | None = None) -> BaseModel:
    model = BaseModel(name="mine", created_at=0)
    set_facts(model, inspect_folder(write_model(folder, shapes=shapes)))
    return model


def _faults(model: BaseModel, **values: Any) -> list[tuple[str, str]]:
    spec = parse_spec({"base_model": "mine", "dataset": "small", **values})
    return [(fault.field, fault.message) for fault in module_faults(spec, model)]


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"rank_pattern": {"lm_head": 4}}, "rank_pattern", "lm_head matches no targeted module; these are down_proj"),
        ({"alpha_pattern": {"proj": 4}}, "alpha_pattern", "proj matches no targeted module"),
        ({"rank_pattern": {r"self_attn\.k_proj": 4}}, "rank_pattern", r"self_attn\.k_proj matches no targeted module"),
        (
            {"target_modules": ["q_proj"], "rank_pattern": {"v_proj": 4}},
            "rank_pattern",
            "v_proj matches no targeted module; these are q_proj",
        ),
        ({"target_modules": ["query"], "rank_pattern": {"query": 4}}, "target_modules", "unknown query; mine has: "),
        ({"modules_to_save": ["nowhere"]}, "modules_to_save", "mine has no nowhere; it has down_proj, embed_tokens, "),
        ({"modules_to_save": ["q_proj"]}, "modules_to_save", "q_proj has LoRA already"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "lm_head is tied: "),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save", "embed_tokens is tied: "),
        ({"modules_to_save": ["norm"]}, "modules_to_save", "norm would take input_layernorm too"),
    ],
)
def test_what_the_model_does_not_have_is_one_fault(
    values: dict[str, Any], field: str, message: str, tmp_path: Path
) -> None:
    ((found, said),) = _faults(_model(tmp_path / "mine"), **values)
    assert found == field
    assert said.startswith(message), said


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    values = {"target_modules": ["query", "q_proj"], "modules_to_save": ["lm_head", "nowhere"]}
    patterns = {"rank_pattern": {"up_proj": 4, "gate": 4}, "alpha_pattern": {"up_proj": 2}}
    fields = [field for field, _ in _faults(_model(tmp_path / "mine"), **values, **patterns)]
    assert fields == [
        *("target_modules", "rank_pattern", "rank_pattern", "alpha_pattern"),
        *("modules_to_save", "modules_to_save"),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"modules_to_save": ["input_layernorm", "post_attention_layernorm", "norm"]},
        {"modules_to_save": ["q_proj"], "target_modules": ["v_proj"]},
        {"rank_pattern": {"q_proj": 4, r"layers\.0\.mlp\.down_proj": 2, "self_attn.v_proj": 2}},
        {"rank_pattern": {"q.proj": 4, r"(v|o)_proj": 2, "nowhere.*": 2}},  # an expression is looked at when it starts
    ],
)
def test_what_the_model_has_or_may_have_is_taken(values: dict[str, Any], tmp_path: Path) -> None:
    assert _faults(_model(tmp_path / "mine", SHAPES | HEAD | MORE_NORMS), **values) == []


def test_names_are_not_judged_where_they_are_not_known(tmp_path: Path) -> None:
    """While the model is imported, and where it is loaded under other names than its files have."""
    values = {"modules_to_save": ["nowhere"], "rank_pattern": {"nowhere": 4}}
    assert _faults(BaseModel(name="coming", status=ModelStatus.IMPORTING, created_at=0), **values) == []
    experts = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": [8, 8] for i in range(2)}
    assert _faults(_model(tmp_path / "experts", SHAPES | experts), modules_to_save=["nowhere", "lm_head"]) == []


def test_files_that_cannot_be_read_are_the_models_fault(tmp_path: Path) -> None:
    model = _model(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"short")
    spec = parse_spec({"base_model": "mine", "dataset": "small", "modules_to_save": ["lm_head"]})
    with pytest.raises(InvalidInput):
        module_faults(spec, model)
    (fault,) = check_references(spec, model, None)
    assert (fault.field, "not a readable safetensors file" in fault.message) == ("base_model", True)


def test_training_every_weight_targets_nothing(tmp_path: Path) -> None:
    assert _faults(_model(tmp_path / "mine"), method="full", target_modules=["query"]) == []
