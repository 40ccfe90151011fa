"""A tiny random Llama with a tiny trained tokenizer, on disk, for every test that needs a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.worker.contexts import make_context as make_context
from tests.worker.contexts import read_records as read_records

# As in SmolLM2: a default system message, and the end-of-turn token doubles as end of sequence and as padding.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COLOURS = ("red", "green", "blue", "black", "white", "yellow")
ROWS = [
    [
        {"role": "user", "content": f"What is the colour of box {number}?"},
        {"role": "assistant", "content": f"Box {number} is {COLOURS[number % len(COLOURS)]}."},
    ]
    for number in range(24)
]


def make_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with pad = eos = `<|im_end|>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [turn["content"] + "\n\n" for row in ROWS for turn in row] + ["system user assistant\n"] * 8
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=chat_template,
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast, *, tie_word_embeddings: bool = True, seed: int = 0, hidden_size: int = 32
) -> Any:
    """A random Llama of two layers whose vocabulary is a little larger than the tokenizer's, as real ones are."""
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 8,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tie_word_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def save_tiny_model(
    folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, tied: bool = True, hidden_size: int = 32
) -> Path:
    """Write model and tokenizer to `folder` as a downloaded model lies there."""
    tokenizer = make_tokenizer(chat_template=chat_template)
    make_model(tokenizer, tie_word_embeddings=tied, hidden_size=hidden_size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[list[dict[str, str]]] = ROWS) -> Path:
    """Write normalised JSONL."""
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def train_payload(model: Path, rows: Path, **spec: Any) -> dict[str, Any]:
    """A training payload that the tiny model learns from within seconds; keywords override the spec."""
    values = {
        "base_model": "tiny",
        "dataset": "boxes",
        "eval_fraction": 0.1,
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "max_length": 128,
        "per_device_train_batch_size": 4,
        "max_steps": 12,
        "learning_rate": 1e-2,
        "eval_steps": 6,
        "save_steps": 4,
        **spec,
    }
    return {
        "spec": values,
        "base_model": {"name": "tiny", "path": str(model), "architecture": "LlamaForCausalLM"},
        "dataset": {
            "name": "boxes",
            "path": str(rows),
            "tokens": str(rows.parent / "tokens"),
            "format": "messages",
            "sha256": None,
        },
    }
