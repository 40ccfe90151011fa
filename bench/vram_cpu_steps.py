"""Live bytes at the peak of real optimizer steps on this machine's CPU, in float32, beside what the plan says of them.

    python -m bench.vram_cpu_steps [--model FOLDER]

The engine's own adapter, batches, attention, loss and dropout; models of random weights over a grid of settings, and
then a real one where a folder is given. No fake tensors: this is what simulation and plan both stand on. Exits with 1
where the plan is off by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from app.core.jobs.capabilities import effective_optim
from app.core.jobs.spec import TrainingSpec
from app.core.planning.families import read_architecture
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
OTHERS = (
    {"model_type": "gpt2", "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 1024, "vocab_size": 4096,
     "bos_token_id": 0, "eos_token_id": 0},
    {**SMALL, "model_type": "gemma2", "head_dim": 64},
    {**SMALL, "model_type": "phi3", "pad_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False},
    {**SMALL, "model_type": "mixtral", "num_local_experts": 4, "tie_word_embeddings": False},
)  # fmt: skip
_TOLERANCE = 0.05


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
        model.activation_checkpointing_enable({"use_reentrant": False})
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


def make_spec(**values: Any) -> TrainingSpec:
    """Plain ones are those of the grid's first setting."""
    usual = {"optim": "adamw_torch", "max_length": 256, "per_device_train_batch_size": 4}
    return TrainingSpec(base_model="m", dataset="d", **{**usual, **values})


def list_settings() -> Iterator[tuple[dict[str, Any], TrainingSpec]]:
    """A grid of method, checkpointing, batch, length, rank and optimizer, then the other kinds of steps and models."""
    batches = [(1, 128), (4, 256), (1, 1024)]
    optimizers = ["adamw_torch", "adamw_torch_fused", "adamw_8bit"]
    for checkpointing, (rows, length), optim in product((True, False), batches, optimizers):
        shared = {
            "gradient_checkpointing": checkpointing, "per_device_train_batch_size": rows, "max_length": length,
            "optim": optim,
        }  # fmt: skip
        yield SMALL, make_spec(method="full", **shared)
        for rank in (8, 64):
            yield SMALL, make_spec(r=rank, **shared)
    for checkpointing in (True, False):
        for values in ({"use_dora": True}, {"task": "dpo"}, {"lora_dropout": 0}, {"target_modules": ["q_proj"]}):
            yield SMALL, make_spec(gradient_checkpointing=checkpointing, **values)
        for config in OTHERS:
            dropout = 0 if config["model_type"] == "mixtral" else 0.05
            yield config, make_spec(gradient_checkpointing=checkpointing, lora_dropout=dropout)


def compare(config: dict[str, Any], spec: TrainingSpec, measured: int) -> float:
    """Print the setting's row and return the plan's relative error."""
    error = predict(config, spec, 0.7) / measured - 1
    batch = f"{spec.per_device_train_batch_size} x {spec.max_length}"
    kind = " ".join(part for part in (spec.method, spec.task, "dora" * spec.use_dora) if part and part != "sft")
    checkpointing = "on" if spec.gradient_checkpointing is True else "off"
    print(
        f"{config['model_type']:8} {kind:10} {batch:>9} r={spec.r:<3} {checkpointing:4} {spec.optim:18} "
        f"{measured / 2**20:8.1f} MiB {error:+7.2%}",
        flush=True,
    )
    return error


def compare_real(folder: Path) -> Iterator[float]:
    """The model in a folder, loaded anew for each of a few settings."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for method, checkpointing in product(("lora", "full"), (True, False)):
        spec = make_spec(method=method, gradient_checkpointing=checkpointing, max_length=128)
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        yield compare(config, spec, measure_model(model, spec, 0.7))


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    errors = [compare(config, spec, measure(config, spec, 0.7)) for config, spec in list_settings()]
    if arguments.model:
        errors += compare_real(arguments.model)
    worst, median = max(map(abs, errors)), statistics.median(map(abs, errors))
    print(json.dumps({"settings": len(errors), "median_error": median, "worst_error": worst}))
    sys.exit(worst > _TOLERANCE)


if __name__ == "__main__":
    main()
