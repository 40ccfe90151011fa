"""QLoRA on the tiny model, on the CPU: what holds of LoRA holds of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from app.core.errors import InvalidInput
from app.core.jobs.spec import parse_spec
from tests.worker.tiny import read_records
from worker.context import JobContext
from worker.training.adapters import add_lora
from worker.training.attention import proves_isolation
from worker.training.losses import Scoring, answer_loss, choose_scoring
from worker.training.model import Hardware, count_parameters, load_base_model
from worker.training.quantization import copy_dequantized, find_quantization
from worker.training.train import run_training

pytestmark = [
    pytest.mark.model,
    # peft asks transformers by the older name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

MakeJob = Callable[..., JobContext]
CPU = Hardware(torch.device("cpu"), torch.float32)
KINDS = {"nf4": {}, "fp4": {"bnb_4bit_quant_type": "fp4"}, "int8": {"load_in_8bit": True}}
SOURCES = {
    "nf4": 'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)',
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
}


def load(model: Path, **spec: Any) -> Any:
    values = parse_spec({"base_model": "tiny", "dataset": "boxes", "method": "qlora", **spec}).model_dump()
    return load_base_model(model, CPU, find_quantization(values)).eval()


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_qlora_learns_and_says_by_what_means(make_job: MakeJob, kind: str) -> None:
    context = make_job(method="qlora", max_steps=20, learning_rate=2e-2, eval_steps=20, **KINDS[kind])
    summary = run_training(context)
    metrics = [r for r in read_records(context) if r.kind == "metric"]
    losses = [record.data["loss"] for record in metrics if "loss" in record.data]
    evals = {record.step: record.data["eval_loss"] for record in metrics if "eval_loss" in record.data}
    assert losses[-1] < losses[0] - 0.1
    assert evals[20] < evals[0] - 0.1
    assert (summary["quantization"], summary["optim"]) == (kind, "adamw_8bit")
    receipt = json.loads((context.folder / "receipt.json").read_text())
    assert receipt["versions"]["bitsandbytes"].startswith("0.")
    assert receipt["result"]["optim"] == "adamw_8bit"
    folder = context.folder / "adapter"
    assert f"quantization_config={SOURCES[kind]})\n" in (folder / "README.md").read_text()
    adapter = load_file(folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_b_moves_in_the_first_step(make_job: MakeJob, checkpointing: bool) -> None:
    context = make_job(
        method="qlora", max_steps=1, warmup_ratio=0, eval_fraction=0, gradient_checkpointing=checkpointing
    )
    run_training(context)
    adapter = load_file(context.folder / "adapter" / "adapter_model.safetensors")
    moved = {name: bool(tensor.ne(0).any()) for name, tensor in adapter.items() if ".lora_B." in name}
    assert len(moved) == 14
    assert all(moved.values())


@pytest.mark.parametrize("kind", KINDS)
def test_card_names_the_configuration_that_was_used(kind: str) -> None:
    values = parse_spec({"base_model": "tiny", "dataset": "boxes", "method": "qlora", **KINDS[kind]}).model_dump()
    quantization = find_quantization(values)
    assert quantization is not None
    named = eval(quantization.to_source(), {"BitsAndBytesConfig": BitsAndBytesConfig})
    assert named.to_dict() == quantization.to_config(torch.float32).to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_packed_in_4_bits_count_each(tiny_model: Path, kind: str) -> None:
    spec = parse_spec({"base_model": "tiny", "dataset": "boxes", "method": "qlora", **KINDS[kind]})
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = add_lora(load(tiny_model, **KINDS[kind]), spec, "tiny")
    trainable, everything = count_parameters(tuned)
    assert everything - trainable == sum(p.numel() for p in plain.parameters())


def test_an_answer_leaves_the_weights_as_gradients_need_them(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor with bf16 products, whatever the one that runs this has, bitsandbytes would repack them."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load(tiny_model)
    ids = torch.arange(20, 60)[None]
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    before = torch.autograd.grad(model(inputs_embeds=embedded).logits.sum(), embedded)[0]
    with torch.inference_mode():
        model(input_ids=ids)
    (after,) = torch.autograd.grad(model(inputs_embeds=embedded).logits.sum(), embedded)
    assert torch.equal(before, after)
    assert not any(getattr(p.quant_state, "packing_format_for_cpu", False) for p in packed(model))


def packed(model: Any) -> list[Any]:
    found = [p for p in model.parameters() if type(p).__name__ == "Params4bit"]
    assert len(found) == 14
    return found


def test_chunked_loss_is_the_plain_one_and_rows_stay_apart(tiny_model: Path) -> None:
    model = load(tiny_model)
    ids = (torch.arange(40) * 37 + 11) % model.config.vocab_size
    batch = {"input_ids": ids[None], "labels": ids[None]}
    assert choose_scoring(model) is Scoring.CHUNKED
    with torch.inference_mode():
        plain, chunked = (float(answer_loss(model, batch, each)) for each in (Scoring.WHOLE, Scoring.CHUNKED))
    assert math.isclose(plain, chunked, rel_tol=1e-5)
    assert proves_isolation(model, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_dequantised_model_answers_as_the_quantised_one(tiny_model: Path, kind: str) -> None:
    quantised, plain = load(tiny_model, **KINDS[kind]), load_base_model(tiny_model, CPU).eval()
    ids = torch.arange(20, 60)[None]
    with torch.inference_mode():
        wanted, before = quantised(input_ids=ids).logits, plain(input_ids=ids).logits
        copy_dequantized(quantised, plain)
        after = plain(input_ids=ids).logits
    tolerance = 0.05 if kind == "int8" else 1e-5  # in 8 bits activations are rounded too
    assert (after - wanted).abs().max() < tolerance * wanted.abs().max()
    assert (before - wanted).abs().mean() > 1.3 * (after - wanted).abs().mean()


def test_quantised_module_cannot_be_trained_whole(make_job: MakeJob) -> None:
    context = make_job(method="qlora", target_modules=["q_proj"], modules_to_save=["down_proj"])
    with pytest.raises(InvalidInput, match="modules_to_save: down_proj is held quantised"):
        run_training(context)


def test_32_bit_paged_optimizer_falls_back_and_says_so(make_job: MakeJob, caplog: pytest.LogCaptureFixture) -> None:
    summary = run_training(make_job(optim="paged_adamw_32bit", max_steps=1, eval_fraction=0))
    assert summary["optim"] == "adamw_torch"
    assert "without CUDA adamw_torch is used" in caplog.text
