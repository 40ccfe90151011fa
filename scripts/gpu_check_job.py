"""The jobs that the GPU check runs: a few steps of LoRA and of QLoRA on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.jobs.spec import parse_spec
from worker.context import Assignment

STEPS = 20
# Only optimizer states of 100,000 elements and more are paged; the widest layer has 128 inputs.
QLORA: dict[str, Any] = {"method": "qlora", "optim": "paged_adamw_8bit", "r": 1024, "lora_alpha": 1024}


def make_assignment(folder: Path, **values: Any) -> Assignment:
    """Lay the model and its rows into `folder`, and say what a child shall do with them; `values` are the spec's."""
    make_tiny_model(folder / "model")
    rows = folder / "rows.jsonl"
    turns = [("user", "Count to ten."), ("assistant", "1 2 3 4 5 6 7 8 9 10")]
    row = json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})
    rows.write_text(f"{row}\n" * 40)
    fixed = {"base_model": "tiny", "dataset": "rows", "eval_fraction": 0, "max_steps": STEPS, "max_length": 128}
    spec = parse_spec({**fixed, **values})
    payload: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "base_model": {"name": "tiny", "path": str(folder / "model"), "architecture": "LlamaForCausalLM"},
        "dataset": {
            "name": "rows",
            "path": str(rows),
            "tokens": str(folder / "tokens"),
            "format": "messages",
            "sha256": None,
        },
    }
    return Assignment(
        job_id=1,
        kind="train",
        attempt=1,
        job_folder=str(folder),
        spool=str(folder / "spool.jsonl"),
        log=str(folder / "train.log"),
        payload=payload,
    )


def make_tiny_model(folder: Path) -> None:
    """A random Llama of 2 layers with a tokenizer of bytes; nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    special = ["<|im_start|>", "<|im_end|>"]
    symbols = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer: Any = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(symbols), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(folder)
