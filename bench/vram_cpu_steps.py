"""Live bytes at the peak of real optimizer steps on this machine's CPU, in float32, beside what the plan says of them.

The engine's own adapter, batches, attention, loss and dropout; the model has random weights. No fake tensors: this is
what the simulation and the plan both stand on.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.jobs.capabilities import effective_optim
from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import read_architecture
from app.core.planning.peak import Setting, peak_of
from bench.live_bytes import LiveBytes
from worker.training.adapters import add_lora
from worker.training.attention import attention_per_row
from worker.training.batches import Collator, FlatCollator, choose_collator
from worker.training.data import IGNORED_LABEL, EncodedRow
from worker.training.dropout import quicken_dropout
from worker.training.losses import answer_loss, choose_scoring

SMALL = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 704, "vocab_size": 4096, "tie_word_embeddings": True,
}  # fmt: skip


def measure(config: dict[str, Any], spec: TrainingSpec, labelled: float) -> int:
    """Peak bytes of the second step on a batch of full rows, of whose tokens a share of `labelled` are learned."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    return measure_model(model, spec, labelled)


def measure_model(model: Any, spec: TrainingSpec, labelled: float) -> int:
    """As `measure`, of a model that is there, which is changed."""
    if spec.method != "full":
        model = add_lora(model, spec, "measured")
    quicken_dropout(model)
    if spec.gradient_checkpointing is True:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if spec.method != "full":
            model.enable_input_require_grads()
    scoring, collate = choose_scoring(model), choose_collator(model, 0, spec.max_length)
    batch, optimizer = _batch(collate, spec, labelled), _optimizer(model.train(), spec)
    counter = LiveBytes((*model.parameters(), *model.buffers()))
    with attention_per_row(model) if isinstance(collate, FlatCollator) else nullcontext(), counter:
        for _ in range(2):
            counter.peak = counter.live
            answer_loss(model, batch, scoring).backward()
            optimizer.step()
            optimizer.zero_grad()
    return counter.peak


def _batch(collate: Collator | FlatCollator, spec: TrainingSpec, labelled: float) -> dict[str, Any]:
    """Each row's last tokens have labels."""
    ids = [7 + i % 90 for i in range(spec.max_length)]
    first = round(spec.max_length * (1 - labelled))
    row = EncodedRow(ids, [IGNORED_LABEL] * first + ids[first:], False)
    return collate([row] * spec.per_device_train_batch_size * (2 if spec.task == "dpo" else 1))


def _optimizer(model: Any, spec: TrainingSpec) -> Any:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if effective_optim(spec.optim, on_cuda=False) == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(trained)
    return torch.optim.AdamW(trained, fused="fused" in spec.optim)


def predict(config: dict[str, Any], spec: TrainingSpec, labelled: float) -> int:
    """The plan's peak of the same step."""
    setting = Setting(on_cuda=False, element_bytes=4, labelled=labelled)
    return peak_of(read_architecture(config), spec, setting).allocated
