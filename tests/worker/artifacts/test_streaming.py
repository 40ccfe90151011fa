"""A streamed merge, tensor by tensor, against peft's own `merge_and_unload`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.core.errors import JobCancelled, MergeError
from tests.worker.artifacts.adapters import Bases, make_bases, stream_merge, tune
from tests.worker.tiny import make_tokenizer
from worker.artifacts import blocks
from worker.artifacts.adapter_tensors import NotStreamable
from worker.artifacts.merge_plan import make_plan
from worker.artifacts.streaming import stream
from worker.training.adapters import load_adapter
from worker.training.model import Hardware, load_base_model
from worker.training.quantization import Quantization, copy_dequantized

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*have invalid shape.*lora_B.bias:peft.utils.warning.PeftWarning"),
]

IDS = torch.arange(3, 60)[None]
NF4 = Quantization(load_in_8bit=False, quant_type="nf4", double_quant=True)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each weight of a tiny model takes several."""
    monkeypatch.setattr(blocks, "_BLOCK_ELEMENTS", 512)


def merge_by_peft(
    base: Path, adapter: Path, folder: Path, dtype: torch.dtype, quantization: Quantization | None = None
) -> Path:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if quantization is not None:
        hardware = Hardware(torch.device("cpu"), torch.bfloat16)
        copy_dequantized(load_base_model(base, hardware, quantization), model)
    merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.to(dtype).save_pretrained(folder / "peft")
    return folder / "peft"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def require_equal(one: Path, other: Path) -> None:
    found, wanted = tensors(one), tensors(other)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert {tensor.dtype for tensor in found.values()} == {tensor.dtype for tensor in wanted.values()}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("tied", {"lora_alpha": 16}),
    "no power of two": ("tied", {"lora_alpha": 12}),
    "rslora": ("tied", {"use_rslora": True}),
    "dora": ("tied", {"use_dora": True}),
    "patterns": ("tied", {"rank_pattern": {"q_proj": 4, "layers.1.mlp.up_proj": 2}, "alpha_pattern": {"k_proj": 33}}),
    "modules to save": ("untied", {"modules_to_save": ["lm_head", "norm"]}),
    "embeddings": ("untied", {"target_modules": ["q_proj", "embed_tokens"]}),
    "head": ("untied", {"target_modules": ["q_proj", "lm_head"]}),
    "head told apart from embeddings": ("tied", {"modules_to_save": ["lm_head"]}),
    "conv1d": ("gpt2", {}),
    "conv1d, dora": ("gpt2", {"use_dora": True}),
    "all biases": ("gpt2", {"bias": "all"}),
    "biases of lora": ("gpt2", {"bias": "lora_only"}),
    "bias in lora_B": ("gpt2", {"lora_bias": True}),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_value_is_that_of_pefts_own_merge(variant: str, dtype: torch.dtype, bases: Bases, tmp_path: Path) -> None:
    which, config = VARIANTS[variant]
    base: Path = getattr(bases, which)
    adapter = tune(base, tmp_path, **{"target_modules": "all-linear", **config})
    require_equal(stream_merge(base, adapter, tmp_path, dtype), merge_by_peft(base, adapter, tmp_path, dtype))


@pytest.mark.parametrize(
    "quantization",
    [NF4, Quantization(False, "nf4", False), Quantization(False, "fp4", True), Quantization(True, "nf4", False)],
    ids=["nf4 twice", "nf4", "fp4", "int8"],
)
@pytest.mark.parametrize("which", ["untied", "gpt2"])
def test_a_quantised_base_is_dequantised_to_the_values_it_computes_with(
    which: str, quantization: Quantization, bases: Bases, tmp_path: Path
) -> None:
    base: Path = getattr(bases, which)
    adapter = tune(base, tmp_path, target_modules="all-linear")
    streamed = stream_merge(base, adapter, tmp_path, torch.float32, quantization)
    require_equal(streamed, merge_by_peft(base, adapter, tmp_path, torch.float32, quantization))


def test_shards_are_those_of_the_base_with_an_index_that_loads(bases: Bases, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(bases.untied)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    shards = len(list((tmp_path / "sharded").glob("*.safetensors")))
    assert shards > 2
    adapter = tune(tmp_path / "sharded", tmp_path, target_modules="all-linear")
    streamed = stream_merge(tmp_path / "sharded", adapter, tmp_path, torch.bfloat16)
    assert len(list(streamed.glob("*.safetensors"))) == shards
    require_equal(streamed, merge_by_peft(tmp_path / "sharded", adapter, tmp_path, torch.bfloat16))
    loaded, told = AutoModelForCausalLM.from_pretrained(streamed, output_loading_info=True)
    assert (told["missing_keys"], told["unexpected_keys"], loaded.dtype) == (set(), set(), torch.bfloat16)


def test_files_without_the_prefix_of_the_body_are_read_as_transformers_reads_them(bases: Bases, tmp_path: Path) -> None:
    """As GPT-2 lies on the hub."""
    bare = shutil.copytree(bases.gpt2, tmp_path / "gpt2")
    named = load_file(bare / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in named.items()}
    save_file(short, bare / "model.safetensors", metadata={"format": "pt"})
    adapter = tune(bare, tmp_path, target_modules="all-linear")
    streamed = stream_merge(bare, adapter, tmp_path, torch.bfloat16)
    require_equal(streamed, merge_by_peft(bare, adapter, tmp_path, torch.bfloat16))


def test_a_grown_vocabulary_is_kept(bases: Bases, tmp_path: Path) -> None:
    words = make_tokenizer().vocab_size + 40
    for which in ("tied", "untied"):
        base, folder = getattr(bases, which), tmp_path / which
        adapter = tune(base, folder, words=words, target_modules=["q_proj"])
        streamed = stream_merge(base, adapter, folder, torch.float32)
        merged: Any = AutoModelForCausalLM.from_pretrained(streamed)
        tuned = load_adapter(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
        assert (merged.config.vocab_size, len(merged.lm_head.weight)) == (words, words)
        with torch.inference_mode():
            torch.testing.assert_close(merged(IDS).logits, tuned(IDS).logits, rtol=1e-4, atol=1e-5)


def test_a_vocabulary_never_shrinks(bases: Bases, tmp_path: Path) -> None:
    adapter = tune(bases.untied, tmp_path, words=300, target_modules=["q_proj"])
    with pytest.raises(MergeError, match="has 300 words, the base model 351: a vocabulary never shrinks"):
        make_plan(bases.untied, adapter, torch.bfloat16, quantised=False)


def test_embeddings_that_only_the_input_has_changed_are_untied(bases: Bases, tmp_path: Path) -> None:
    """What peft merges into a tied weight changes the head, too; base and adapter do not."""
    adapter = tune(bases.tied, tmp_path, target_modules=["embed_tokens", "v_proj"])
    streamed = stream_merge(bases.tied, adapter, tmp_path, torch.float32)
    merged: Any = AutoModelForCausalLM.from_pretrained(streamed).eval()
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bases.tied), str(adapter)).eval()
    assert not merged.config.tie_word_embeddings
    with torch.inference_mode():
        torch.testing.assert_close(merged(IDS).logits, tuned(IDS).logits, rtol=1e-4, atol=1e-5)


def _edit(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _rename(adapter: Path, one: str, other: str) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file({name.replace(one, other): tensor for name, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda adapter: _edit(adapter, brand_new_option=3), "says brand_new_option = 3"),
        (lambda adapter: _edit(adapter, layer_replication=[[0, 2]]), "says layer_replication = "),
        (lambda adapter: _edit(adapter, init_lora_weights="pissa"), 'says init_lora_weights = "pissa"'),
        (lambda adapter: _edit(adapter, peft_type="IA3"), 'says peft_type = "IA3"'),
        (lambda adapter: _edit(adapter, r=4), "has rank 8, and its configuration says 4"),
        (lambda adapter: _rename(adapter, "layers.1", "layers.7"), "the base model has no module model.layers.7"),
        (lambda adapter: _rename(adapter, "q_proj.lora_B", "q_proj.lora_C"), "it has a tensor .*lora_C"),
        (lambda adapter: _rename(adapter, "base_model.", ""), "it has a tensor model.model"),
    ],
)
def test_what_is_not_known_to_be_dealt_with_is_left_to_peft(
    change: Callable[[Path], None], reason: str, bases: Bases, tmp_path: Path
) -> None:
    adapter = tune(bases.tied, tmp_path, target_modules="all-linear")
    make_plan(bases.tied, adapter, torch.bfloat16, quantised=False)
    change(adapter)
    with pytest.raises(NotStreamable, match=reason):
        make_plan(bases.tied, adapter, torch.bfloat16, quantised=False)


def test_a_tensor_that_does_not_fit_is_named(bases: Bases, tmp_path: Path) -> None:
    base = shutil.copytree(bases.tied, tmp_path / "large")
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][40, 0] = 1e6
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    adapter = tune(base, tmp_path, target_modules=["q_proj"])
    with pytest.raises(MergeError, match=r"layers\.0\.mlp\.up_proj\.weight holds values that do not fit into float16"):
        stream_merge(base, adapter, tmp_path, torch.float16)


def test_it_can_be_stopped_between_tensors(bases: Bases, tmp_path: Path) -> None:
    asked = iter(range(100))

    def check_stop() -> None:
        if next(asked) == 5:
            raise JobCancelled()

    plan = make_plan(
        bases.tied, tune(bases.tied, tmp_path, target_modules="all-linear"), torch.bfloat16, quantised=False
    )
    with pytest.raises(JobCancelled):
        stream(plan, tmp_path, None, check_stop)
    assert next(asked) == 6


def test_a_file_that_ends_too_early_is_told(bases: Bases, tmp_path: Path) -> None:
    base = shutil.copytree(bases.tied, tmp_path / "cut")
    plan = make_plan(base, tune(base, tmp_path, target_modules=["q_proj"]), torch.bfloat16, quantised=False)
    with (base / "model.safetensors").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(OSError, match="bytes before its tensor does"):
        stream(plan, tmp_path, None, lambda: None)
