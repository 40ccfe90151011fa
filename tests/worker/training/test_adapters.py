"""LoRA variants against plain torch, and their saved adapters on the original base model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from app.core.errors import InvalidInput, ModelLoadError
from app.core.jobs.spec import parse_spec
from tests.worker.artifacts.conftest import Trained
from tests.worker.artifacts.test_merge import merge_job
from tests.worker.tiny import make_context, read_records, save_tiny_model, train_payload, write_rows
from worker.artifacts.merge import run_merge
from worker.context import JobContext
from worker.training import run, samples
from worker.training.adapters import add_lora, load_adapter
from worker.training.model import Hardware, count_parameters, load_base_model
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

CPU = Hardware(torch.device("cpu"), torch.float32)
IDS = torch.arange(3, 40).unsqueeze(0)
MakeJob = Callable[..., JobContext]
VARIANTS: dict[str, dict[str, Any]] = {
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter": {"init_lora_weights": "pissa_niter_16"},
    "olora": {"init_lora_weights": "olora"},
    "pissa, rslora and patterns": {
        "init_lora_weights": "pissa",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 4},
        "alpha_pattern": {"q_proj": 6, r"layers\.0\.mlp\.up_proj": 3},
    },
    "olora, dora": {"init_lora_weights": "olora", "use_dora": True},
    "pissa, biases and whole modules": {"init_lora_weights": "pissa", "bias": "all", "modules_to_save": ["lm_head"]},
    "bias all": {"bias": "all"},
    "bias lora_only": {"bias": "lora_only"},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "patterns": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"down_proj": 64}},
}


@pytest.fixture(scope="session")
def biased_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head of its own and with biases that are not zero."""
    folder = save_tiny_model(tmp_path_factory.mktemp("biased"), tied=False)
    plain: Any = AutoModelForCausalLM.from_pretrained(folder)
    config = LlamaConfig.from_pretrained(folder, attention_bias=True, mlp_bias=True)
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(plain.state_dict(), strict=False)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model.eval()(input_ids=IDS).logits
    return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_variant_fits_the_original_base_and_merges(
    variant: str, biased_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, on plain peft after a reload, and merged: the same answers. Step 0 is the base model's."""
    trained: list[torch.Tensor] = []
    write = samples.write_samples

    def write_samples(context: JobContext, model: Any, *others: Any) -> None:
        trained.append(logits(model))
        write(context, model, *others)

    monkeypatch.setattr(run, "write_samples", write_samples)
    values = {"max_steps": 6, "eval_steps": 3, "save_steps": 6, "warmup_ratio": 0, **VARIANTS[variant]}
    context = make_context(
        tmp_path / "job", "train", train_payload(biased_model, write_rows(tmp_path / "rows.jsonl"), **values)
    )
    run_training(context)
    base: Any = AutoModelForCausalLM.from_pretrained(biased_model)
    before = logits(base)
    after = logits(PeftModel.from_pretrained(base, str(context.folder / "adapter")))
    assert (after - before).abs().max() > 0.05, "it must have learned something"
    torch.testing.assert_close(after, trained[-1], rtol=1e-4, atol=1e-4)
    merge = merge_job(Trained(biased_model, context.folder / "adapter"), tmp_path / "merge", "fp32")
    run_merge(merge)
    merged: Any = AutoModelForCausalLM.from_pretrained(merge.folder / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["pissa", "olora, dora", "bias all", "modules_to_save"])
def test_step_0_is_the_base_model(variant: str, biased_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl")
    first = []
    for name, values in (("plain", {}), ("variant", VARIANTS[variant])):
        payload = train_payload(biased_model, rows, max_steps=3, eval_steps=3, warmup_ratio=0, **values)
        context = make_context(tmp_path / name, "train", payload)
        run_training(context)
        records = read_records(context)
        losses = {r.step: r.data["eval_loss"] for r in records if "eval_loss" in r.data}
        assert set(losses) == {0, 3}
        samples = [r for r in records if r.kind == "sample"]
        assert sorted((r.data["model"], r.step) for r in samples) == [("base", 0)] * 2 + [("tuned", 3)] * 2
        first.append((losses[0], {r.data["prompt"]: r.data["text"] for r in samples if r.data["model"] == "base"}))
    assert first[1][0] == pytest.approx(first[0][0], abs=1e-4)
    assert first[1][1] == first[0][1]


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"modules_to_save": ["nowhere"]}, "modules_to_save", "has no nowhere; it has .*lm_head"),
        ({"modules_to_save": ["q_proj"]}, "modules_to_save", "q_proj has LoRA already"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "tied"),
        ({"modules_to_save": ["norm"]}, "modules_to_save", "norm would take input_layernorm, post_attention_layernorm"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save", "tied"),
        ({"rank_pattern": {"lm_head": 4}}, "rank_pattern", "lm_head matches no targeted module"),
        ({"alpha_pattern": {"proj": 4}}, "alpha_pattern", "proj matches no targeted module"),
        ({"r": 17, "init_lora_weights": "pissa"}, "r", "at most 16 in this model"),
        ({"rank_pattern": {"q_proj": 32}, "init_lora_weights": "olora"}, "r", "at most 16 in this model"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    values: dict[str, Any], field: str, words: str, tiny_model: Path, tmp_path: Path
) -> None:
    spec = parse_spec(train_payload(tiny_model, tmp_path, **values)["spec"])
    with pytest.raises(InvalidInput) as caught:
        add_lora(load_base_model(tiny_model, CPU), spec, "tiny")
    (fault,) = caught.value.faults
    assert fault.field == field
    assert re.search(words, fault.message), fault.message


def test_every_fault_of_the_model_is_told_at_once(tiny_model: Path, tmp_path: Path) -> None:
    values = {"target_modules": ["c_attn", "q_proj"], "modules_to_save": ["lm_head"], "rank_pattern": {"up_proj": 4}}
    spec = parse_spec(train_payload(tiny_model, tmp_path, **values)["spec"])
    with pytest.raises(InvalidInput) as caught:
        add_lora(load_base_model(tiny_model, CPU), spec, "tiny")
    assert [fault.field for fault in caught.value.faults] == ["target_modules", "modules_to_save", "rank_pattern"]
    values["rank_pattern"] = {"c_attn": 4}
    with pytest.raises(InvalidInput) as caught:
        add_lora(load_base_model(tiny_model, CPU), parse_spec({**spec.model_dump(), **values}), "tiny")
    assert [fault.field for fault in caught.value.faults] == ["target_modules", "modules_to_save"], "told once"


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_adapter_equals_the_formula_in_plain_torch(variant: str, tiny_model: Path, tmp_path: Path) -> None:
    """y = Wx + s·BAx with s = alpha/r or alpha/√r; DoRA: y = m·(W + s·BA)x / ‖W + s·BA‖ with norms by row.

    Source: https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2312.03732, https://arxiv.org/abs/2402.09353.
    """
    switches = {"use_rslora": variant == "rslora", "use_dora": variant == "dora"}
    spec = parse_spec(train_payload(tiny_model, tmp_path, r=4, lora_alpha=6, **switches)["spec"])
    model = add_lora(load_base_model(tiny_model, CPU), spec, "tiny").eval()
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    weight, a, b = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.count_nonzero(a) == a.numel()
    assert torch.count_nonzero(b) == 0
    torch.nn.init.normal_(b, std=0.1)
    x, scale = torch.randn(5, 32), 6 / 4**0.5 if variant == "rslora" else 6 / 4
    expected = x @ weight.T + scale * (x @ a.T @ b.T)
    if variant == "dora":
        magnitude = layer.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(magnitude, weight.norm(dim=1))
        expected = expected * magnitude / (weight + scale * b @ a).norm(dim=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-6)


LLAMA_3_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip
LLAMA_32_1B = LlamaConfig(
    vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "r", "targets", "base", "trainable"),
    [
        (LLAMA_3_8B, 8, ["q_proj", "v_proj"], 8_030_261_248, 3_407_872),
        (LLAMA_3_8B, 16, ["q_proj", "v_proj"], 8_030_261_248, 6_815_744),
        (LLAMA_3_8B, 64, "all-linear", 8_030_261_248, 167_772_160),
        (LLAMA_32_1B, 8, ["q_proj", "v_proj"], 1_235_814_400, 851_968),
    ],
)
def test_trainable_parameters_of_published_models(
    config: LlamaConfig, r: int, targets: Any, base: int, trainable: int, tmp_path: Path
) -> None:
    spec = parse_spec(train_payload(tmp_path, tmp_path, r=r, target_modules=targets)["spec"])
    with torch.device("meta"):
        model = add_lora(LlamaForCausalLM(config), spec, "llama")
    assert count_parameters(model) == (trainable, base + trainable)


def test_tied_embeddings_stay_tied_and_the_vocabulary_keeps_its_size(tiny_model: Path, tmp_path: Path) -> None:
    base = load_base_model(tiny_model, CPU)
    words = base.config.vocab_size
    model = add_lora(base, parse_spec(train_payload(tiny_model, tmp_path)["spec"]), "tiny").get_base_model()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.shape[0] == words == model.config.vocab_size


@pytest.mark.parametrize("fault", ["missing", "unexpected"])
def test_adapter_that_does_not_fit_its_model_is_refused(fault: str, make_job: MakeJob, tiny_model: Path) -> None:
    context = make_job(max_steps=2)
    run_training(context)
    folder = Path(shutil.copytree(context.folder / "adapter", context.folder / "copy"))
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    tensor = weights.pop(name)
    if fault == "unexpected":
        weights |= {name: tensor, name.replace("layers.0", "layers.7"): tensor.clone()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"does not fit tiny: 1 tensors .*lora_B"):
        load_adapter(load_base_model(tiny_model, CPU), folder)


@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")  # peft's own, of experts
def test_dropout_on_stacked_experts_is_a_fault_of_its_field() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 2, "num_local_experts": 2, "vocab_size": 64}
    spec = parse_spec({"base_model": "b", "dataset": "d", "lora_dropout": 0.1})
    with pytest.raises(InvalidInput) as caught:
        add_lora(MixtralForCausalLM(MixtralConfig(**sizes, **experts)), spec, "b")
    (fault,) = caught.value.faults
    assert (fault.field, fault.fix) == ("lora_dropout", {"lora_dropout": 0})
    add_lora(MixtralForCausalLM(MixtralConfig(**sizes, **experts)), spec.model_copy(update=fault.fix or {}), "b")
