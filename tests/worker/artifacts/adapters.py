"""Adapters of tiny models whose every number is random, and their streamed merges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests.worker.tiny import make_tokenizer, save_tiny_model
from worker.artifacts.merge_plan import make_plan
from worker.artifacts.saving import save_configuration
from worker.artifacts.streaming import Trained, stream
from worker.training.quantization import Quantization


@dataclass(frozen=True)
class Bases:
    """Folders of tiny models: a Llama with tied embeddings, one with a head of its own, and a GPT-2."""

    tied: Path
    untied: Path
    gpt2: Path


def make_bases(folder: Path) -> Bases:
    """Write them below the folder."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer) + 8, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    return Bases(save_tiny_model(folder / "tied"), save_tiny_model(folder / "untied", tied=False), folder / "gpt2")


def tune(base: Path, folder: Path, *, words: int | None = None, **config: Any) -> Path:
    """An adapter whose every number is random, as peft saves it."""
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if words is not None:
        model.resize_token_embeddings(words)
    conv = {"fan_in_fan_out": True} if base.name == "gpt2" else {}
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, **conv, **config))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=words is not None)
    return folder / "adapter"


def stream_merge(
    base: Path, adapter: Path, folder: Path, dtype: torch.dtype, quantization: Quantization | None = None
) -> Path:
    plan = make_plan(base, adapter, dtype, quantised=quantization is not None)
    target = folder / "streamed"
    target.mkdir()
    stream(plan, target, Trained(quantization, torch.bfloat16) if quantization else None, lambda: None)
    save_configuration(plan.skeleton.model, target, dtype, words=plan.vocabulary, untied=plan.untied)
    return target
