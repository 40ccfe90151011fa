"""The same job as a script of peft and transformers' Trainer alone, for `bench.start` to compare with.

    python -m bench.bare_job MODEL ROWS SPEC.json

Stock parts: the chat template with the prompt masked, DataCollatorForSeq2Seq, the Trainer's own loss. Prints `step N`
with the time (seconds since the epoch) after each optimizer step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class _Clock(TrainerCallback):
    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        print("step", state.global_step, time.time(), flush=True)


def encode(tokenizer: Any, messages: list[dict[str, str]], max_length: int) -> dict[str, list[int]]:
    """One row of a question and its answer, the question masked."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template(messages, return_dict=False)[:max_length]
    return {"input_ids": ids, "labels": [*[-100] * len(prompt), *ids[len(prompt) :]][:max_length]}


def main() -> None:
    model_path, rows_path, spec = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    lines = rows_path.read_text(encoding="utf-8").splitlines()
    rows = [encode(tokenizer, json.loads(line)["messages"], spec["max_length"]) for line in lines]
    lora = {name: spec[name] for name in ("r", "lora_alpha", "lora_dropout", "target_modules")}
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)  # as our job computes on a CPU
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **lora))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=spec["per_device_train_batch_size"],
            learning_rate=spec["learning_rate"],
            max_steps=spec["max_steps"],
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        collate = DataCollatorForSeq2Seq(tokenizer)
        Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[_Clock()]).train()


if __name__ == "__main__":
    main()
