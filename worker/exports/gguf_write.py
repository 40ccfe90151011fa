"""Write a model folder as one GGUF file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, RopeScalingType

from app.core.exports.gguf_rules import Family, rope_of
from worker.exports.gguf_tensors import ROPE_FACTORS, Array, Target, Weights, encode, head_size, rope_factors
from worker.exports.gguf_vocab import read_vocabulary, write_vocabulary

_FILE_TYPES = {"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}


def write_gguf(
    weights: Weights,
    folder: Path,
    config: Mapping[str, Any],
    family: Family,
    target: Path,
    *,
    name: str,
    quantization: str,
    on_tensor: Callable[[int], None] = lambda _done: None,
) -> None:
    """`on_tensor` is told how many are written, and may raise to break off."""
    writer = GGUFWriter(target, family.name)
    with closing(writer):
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(int(_FILE_TYPES[quantization]))
        writer.add_quantization_version(2)
        _write_shape(writer, config, family)
        write_vocabulary(writer, read_vocabulary(folder, config["vocab_size"]))
        _write_tensors(writer, weights, rope_factors(config), on_tensor)


def _write_shape(writer: GGUFWriter, config: Mapping[str, Any], family: Family) -> None:
    """What config.json says, under llama.cpp's names."""
    heads, size, rope = config["num_attention_heads"], head_size(config), rope_of(config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if family.name == "llama":
        writer.add_rope_dimension_count(size)
    if size * heads != config["hidden_size"] or family.name == "qwen3":
        writer.add_key_length(size)
        writer.add_value_length(size)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _write_tensors(writer: GGUFWriter, weights: Weights, factors: Any, on_tensor: Callable[[int], None]) -> None:
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, np.dtype(np.float32), factors.nbytes)
    for each in weights.targets:
        quantized = each.type is GGMLQuantizationType.Q8_0
        shape = (*each.shape[:-1], each.shape[-1] // 32 * 34) if quantized else each.shape
        kind = np.dtype(np.uint8 if quantized else np.float16 if each.type is GGMLQuantizationType.F16 else np.float32)
        writer.add_tensor_info(each.name, shape, kind, each.stored_bytes, raw_dtype=each.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    out = (writer.fout or [])[0]
    parts = [(factors.nbytes, iter([factors]))] if factors is not None else []
    parts += [(each.stored_bytes, _encoded(weights, each)) for each in weights.targets]
    for done, (size, pieces) in enumerate(parts, start=1):
        writer.write_padding(out, out.tell())
        for piece in pieces:
            piece.tofile(out)
        writer.write_padding(out, size)
        on_tensor(done)


def _encoded(weights: Weights, target: Target) -> Iterator[Array]:
    for piece in weights.pieces(target):
        yield encode(piece, target)
