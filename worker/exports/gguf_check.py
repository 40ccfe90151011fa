"""Proof that a GGUF is the model it was made of: read back by `gguf`, each tensor, and by transformers as a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from app.core.exports.gguf_rules import rope_of
from worker.artifacts.answers import Reference, compare, logits_of, measure_reference
from worker.exports.gguf_tensors import Array, ExportError, Target, Weights
from worker.exports.gguf_vocab import Vocabulary, read_vocabulary
from worker.own_code import NO_CODE

# Bounds on the root-mean-square difference of the logits, as a share of their spread over the vocabulary. From bf16 to
# f16 nothing is lost but of tiny values; an 8-bit block keeps a weight within 1/254 of its largest, about as near
# as bf16 does: 8 % was seen on a 135M model, so it may cost what that may (ADR 12).
_ALLOWED = {"f16": 5e-3, "q8_0": 0.2}
_STEP = 0.57  # of a block's scale: half a step, and the scale's own rounding to f16
_ADVICE = "Export again; if it fails again, use the safetensors of the merged model, which are unharmed."


def check_tensors(file: Path, weights: Weights, on_tensor: Callable[[int], None] = lambda _done: None) -> float:
    """Every tensor is there and as near as its type allows; returns the largest error. Raises: ExportError."""
    read = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    worst = 0.0
    for done, target in enumerate(weights.targets, start=1):
        tensor = read.get(target.name)
        if tensor is None or tensor.tensor_type != target.type or tuple(tensor.shape[::-1]) != target.shape:
            raise ExportError(f"{target.name} is not in the GGUF as it was written.", advice=_ADVICE)
        worst = max(worst, _largest_error(tensor.data, weights, target))
        on_tensor(done)
    return worst


def _largest_error(stored: Array, weights: Weights, target: Target) -> float:
    """Raises: ExportError where a value is further off than its type explains."""
    worst, row = 0.0, 0
    for piece in weights.pieces(target):
        part = stored[row : row + len(piece)]
        row += len(piece)
        error = np.abs(dequantize(part, target.type).reshape(piece.shape) - piece)
        if not (error <= _tolerance(piece, target.type)).all():
            raise ExportError(f"{target.name} in the GGUF differs from {target.source}.", advice=_ADVICE)
        worst = max(worst, float(error.max(initial=0.0)))
    return worst


def _tolerance(piece: Array, kind: GGMLQuantizationType) -> Array:
    """What rounding may cost each value."""
    if kind is GGMLQuantizationType.Q8_0:
        scales = np.abs(piece.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
        return np.broadcast_to(scales * _STEP + 1e-7, (scales.size, 32)).reshape(piece.shape)
    if kind is GGMLQuantizationType.F16:
        rounding: Array = np.abs(piece) * 2**-11 + 2**-25
        return rounding
    return np.zeros_like(piece)


def check_tokenizer(file: Path, folder: Path, vocabulary_size: int) -> None:
    """transformers reads the same tokens, merges, special tokens and chat template from it. Raises: ExportError."""
    wanted, reader = read_vocabulary(folder, vocabulary_size), GGUFReader(file)
    differing = [name for name, value in _keys(wanted).items() if reader.fields[name].contents() != value]
    theirs, ours = (
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, **NO_CODE),
        AutoTokenizer.from_pretrained(folder, **NO_CODE),
    )
    differing += ["chat template"] if (theirs.chat_template or "") != (ours.chat_template or "") else []
    differing += ["end of sequence"] if theirs.eos_token_id != ours.eos_token_id else []
    known = ours.get_vocab()
    read = {text: number for text, number in theirs.get_vocab().items() if number < len(ours)}
    differing += ["tokens"] if any(known.get(text) != number for text, number in read.items()) else []
    if differing:
        raise ExportError(f"The tokenizer in the GGUF is not the model's: {', '.join(differing)}.", advice=_ADVICE)


def _keys(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.types,
        "tokenizer.ggml.merges": vocabulary.merges,
        "tokenizer.ggml.pre": vocabulary.pre,
        "tokenizer.ggml.add_bos_token": vocabulary.adds_bos,
    }


def check_answers(file: Path, folder: Path, config: Mapping[str, Any], quantization: str) -> dict[str, Any]:
    """The model that transformers reads from the GGUF answers as the folder's. Raises: ExportError.

    Where memory does not hold one of them in fp32 nothing is compared, and the result says so.
    """
    needed, free = _fp32_bytes(folder), psutil.virtual_memory().available
    if needed > free:
        reason = f"Loading the model in fp32 needs {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free."
        return {"answers_compared": False, "warning": f"Its answers were not compared. {reason}"}
    tokenizer = AutoTokenizer.from_pretrained(folder, **NO_CODE)
    reference = measure_reference(_load(folder), tokenizer)
    model = _load_gguf(file, folder, config)
    read = Reference(reference.input_ids, [logits_of(model, ids) for ids in reference.input_ids], reference.new_tokens)
    comparison = compare(reference, read)
    if not comparison.relative_difference <= _ALLOWED[quantization]:  # a NaN is never within it
        raise ExportError(
            f"The model in the GGUF answers otherwise: its logits are {comparison.relative_difference:.2%} of their "
            f"spread off; {_ALLOWED[quantization]:.1%} is allowed.",
            advice=_ADVICE,
        )
    return {"answers_compared": True, **asdict(comparison), "warning": None}


def _load(folder: Path) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **NO_CODE)
    return model.eval()


def _load_gguf(file: Path, folder: Path, config: Mapping[str, Any]) -> Any:
    """As transformers reads it. Scaled rotary frequencies and Qwen 3's size of a head it passes over."""
    reads_all = rope_of(config)["rope_type"] == "default" and config["model_type"] != "qwen3"
    known = {} if reads_all else {"config": AutoConfig.from_pretrained(folder, **NO_CODE)}
    quantized = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=quantized, **NO_CODE, **known
    )
    return model.eval()


def _fp32_bytes(folder: Path) -> int:
    """At most: weights of 16 bits double, and a tenth is for what is computed."""
    return int(2.2 * sum(file.stat().st_size for file in folder.glob("*.safetensors")))
