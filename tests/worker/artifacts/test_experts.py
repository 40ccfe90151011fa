"""Models whose experts lie apart in their files and are stacked while they are loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.worker.artifacts.adapters import stream_merge, tune
from tests.worker.artifacts.test_certificate import MERGES, certify
from tests.worker.artifacts.test_streaming import merge_by_peft, require_equal
from tests.worker.tiny import make_tokenizer
from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.merge_plan import make_plan

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*rank_pattern keys did not match:RuntimeWarning"),
]
WORDS = make_tokenizer().vocab_size + 8
_COMMON: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "num_experts_per_tok": 1, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=["mixtral", "qwen3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts as it lies on the hub: each expert's weights by themselves."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    torch.manual_seed(0)
    model: Any = (
        MixtralForCausalLM(MixtralConfig(**_COMMON, num_local_experts=2))
        if request.param == "mixtral"
        else Qwen3MoeForCausalLM(Qwen3MoeConfig(**_COMMON, num_experts=2, moe_intermediate_size=32, head_dim=16))
    )
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    assert any("experts.1." in name for name in load_file(folder / "model.safetensors"))
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_experts_that_the_adapter_leaves_alone_are_carried_over(dtype: torch.dtype, base: Path, tmp_path: Path) -> None:
    adapter = tune(base, tmp_path, target_modules=["q_proj", "o_proj"], modules_to_save=["lm_head"])
    streamed = stream_merge(base, adapter, tmp_path, dtype)
    require_equal(streamed, merge_by_peft(base, adapter, tmp_path, dtype))
    _, told = AutoModelForCausalLM.from_pretrained(streamed, output_loading_info=True)
    assert (told["missing_keys"], told["unexpected_keys"]) == (set(), set())


def test_its_certificate_compares_the_experts_too(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MERGES, "experts", ("moe", {"target_modules": ["q_proj", "o_proj"]}))
    bases: Any = SimpleNamespace(moe=base)
    certificate = certify("experts", bases, tmp_path, torch.bfloat16)
    weights = AutoModelForCausalLM.from_pretrained(base).num_parameters()
    assert (certificate["passed"], certificate["values"], certificate["values_differing"]) == (True, weights, 0)


def test_experts_that_the_adapter_changes_are_left_to_peft(base: Path, tmp_path: Path) -> None:
    adapter = tune(base, tmp_path, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    with pytest.raises(NotStreamable, match="says target_parameters = "):
        make_plan(base, adapter, torch.bfloat16, quantised=False)


def test_experts_of_a_quantised_base_are_left_to_peft(base: Path, tmp_path: Path) -> None:
    adapter = tune(base, tmp_path, target_modules=["q_proj"])
    with pytest.raises(NotStreamable, match=r"transformers converts .*experts"):
        make_plan(base, adapter, torch.bfloat16, quantised=True)
