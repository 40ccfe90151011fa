"""What a spare child does ahead of its job beyond the imports: it loads a tiny model once, as jobs load theirs.

The first load of a process compiles transformers' patterns of weight names and imports what loading needs: about a
third of a second. No training step is taken ahead: it would set process-wide state that belongs to the job's settings.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from worker.training.model import Hardware, load_base_model
from worker.training.tokenizer import load_tokenizer


def warm_up() -> None:
    """Write, load and forget a model of a few numbers, on the CPU; a GPU is not touched."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_model(folder)
        load_tokenizer(folder)
        load_base_model(folder, Hardware(torch.device("cpu"), torch.float32))


def _write_model(folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
