"""Architectures from config.json files, family by family: no weights, no torch.

Source: the modelling code of each family in transformers 5; a test compares every count with the real classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.core.errors import Fault, InvalidInput
from app.core.planning.architecture import FIELD, Architecture, Linear
from app.core.planning.sizes import Sizes, read_flag, read_positions, read_size, read_sizes, read_window, refused, shown


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Raises: InvalidInput for what is not the config of a known language model, or has impossible sizes."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        message = f"cannot be planned: its config.json says model_type {shown(model_type)}"
        raise InvalidInput([Fault(FIELD, message, f"Known: {known}. Training itself may know it.")])
    return _FAMILIES[model_type](config)


def _decoder(
    config: Mapping[str, Any],
    *,
    norms: int = 2,
    query_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
    fused: bool = False,
    tied: bool = False,
    head_dim: int | None = None,
    experts: bool = False,
    capped: bool = False,
) -> Architecture:
    """The family of Llama: gated MLP, rotary positions, RMS norms of one weight per feature."""
    sizes = read_sizes(config, head_dim)
    bias = (query_bias, output_bias, mlp_bias)
    linears = (_fused_linears if fused else _linears)(sizes, bias)
    linears = tuple(linear for linear in linears if not (experts and linear.path.startswith("mlp.")))
    norm_weights = norms * sizes.hidden + 2 * sizes.head_dim * head_norms
    several = read_size(config, "num_local_experts") if experts else 0
    chosen = read_size(config, "num_experts_per_tok", 2) if experts else 0
    if chosen > several:
        raise refused(f"num_experts_per_tok = {chosen} of num_local_experts = {several}")
    return Architecture(
        str(config["model_type"]),
        sizes.layers,
        sizes.hidden,
        sizes.heads,
        sizes.key_value_heads,
        sizes.head_dim,
        sizes.intermediate,
        sizes.vocabulary,
        read_positions(config, "max_position_embeddings"),
        linears,
        norm_weights + several * (sizes.hidden + 3 * sizes.hidden * sizes.intermediate),
        sizes.vocabulary * sizes.hidden,
        0 if read_flag(config, "tie_word_embeddings", tied) else sizes.vocabulary * sizes.hidden,
        sizes.hidden,
        stacks=_expert_stacks(sizes, several) if experts else (),
        head_norms=head_norms,
        experts=several,
        experts_per_token=chosen,
        soft_cap=capped and config.get("final_logit_softcapping", True) is not None,
        eager_attention=capped,
        window=read_window(config),
    )


def _linears(sizes: Sizes, bias: tuple[bool, bool, bool]) -> tuple[Linear, ...]:
    of_query, of_output, of_mlp = bias
    return (
        Linear("self_attn.q_proj", sizes.hidden, sizes.queries, of_query),
        Linear("self_attn.k_proj", sizes.hidden, sizes.keys, of_query),
        Linear("self_attn.v_proj", sizes.hidden, sizes.keys, of_query),
        Linear("self_attn.o_proj", sizes.queries, sizes.hidden, of_output),
        Linear("mlp.gate_proj", sizes.hidden, sizes.intermediate, of_mlp),
        Linear("mlp.up_proj", sizes.hidden, sizes.intermediate, of_mlp),
        Linear("mlp.down_proj", sizes.intermediate, sizes.hidden, of_mlp),
    )


def _fused_linears(sizes: Sizes, _bias: tuple[bool, bool, bool]) -> tuple[Linear, ...]:
    return (
        Linear("self_attn.qkv_proj", sizes.hidden, sizes.queries + 2 * sizes.keys),
        Linear("self_attn.o_proj", sizes.queries, sizes.hidden),
        Linear("mlp.gate_up_proj", sizes.hidden, 2 * sizes.intermediate),
        Linear("mlp.down_proj", sizes.intermediate, sizes.hidden),
    )


def _expert_stacks(sizes: Sizes, experts: int) -> tuple[Linear, ...]:
    """The router, and the experts, whose matrices transformers holds as two tensors and peft targets as they are.

    Source: peft.utils.transformers_weight_conversion; the first tensor holds two matrices, and its rank is doubled.
    """
    return (
        Linear("mlp.gate", sizes.hidden, experts),
        Linear("mlp.experts.gate_up_proj", sizes.hidden, 2 * sizes.intermediate, stack=2 * experts),
        Linear("mlp.experts.down_proj", sizes.intermediate, sizes.hidden, stack=experts),
    )


def _llama(config: Mapping[str, Any]) -> Architecture:
    attention = read_flag(config, "attention_bias", False)
    mlp = read_flag(config, "mlp_bias", False)
    return _decoder(config, query_bias=attention, output_bias=attention, mlp_bias=mlp)


def _qwen3(config: Mapping[str, Any]) -> Architecture:
    bias = read_flag(config, "attention_bias", False)
    return _decoder(config, query_bias=bias, output_bias=bias, head_norms=True, head_dim=128)


def _gpt2(config: Mapping[str, Any]) -> Architecture:
    """Conv1D modules with biases, learned positions, layer norms of weight and bias, the head always tied."""
    hidden, heads, layers = read_size(config, "n_embd"), read_size(config, "n_head"), read_size(config, "n_layer")
    inner = read_size(config, "n_inner", 4 * hidden)
    vocabulary, positions = read_size(config, "vocab_size"), read_size(config, "n_positions", 1024)
    linears = (
        Linear("attn.c_attn", hidden, 3 * hidden, bias=True),
        Linear("attn.c_proj", hidden, hidden, bias=True),
        Linear("mlp.c_fc", hidden, inner, bias=True),
        Linear("mlp.c_proj", inner, hidden, bias=True),
    )
    embeddings = (vocabulary + positions) * hidden
    return Architecture(
        "gpt2", layers, hidden, heads, heads, hidden // heads, inner, vocabulary, positions, linears,
        4 * hidden, embeddings, 0, 2 * hidden, "transformer.h", norm_biases=(2 * layers + 1) * hidden,
        attention_dropout=config.get("attn_pdrop", 0.1) != 0,
    )  # fmt: skip


_FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], Architecture]] = {
    "llama": _llama,
    "mistral": _decoder,
    "qwen2": lambda config: _decoder(config, query_bias=True),
    "qwen3": _qwen3,
    "gemma": lambda config: _decoder(config, tied=True, head_dim=256),
    "gemma2": lambda config: _decoder(config, norms=4, tied=True, head_dim=256, capped=True),
    "gemma3_text": lambda config: _decoder(config, norms=4, head_norms=True, tied=True, head_dim=256),
    "phi3": lambda config: _decoder(config, fused=True),
    "mixtral": lambda config: _decoder(config, experts=True),
    "gpt2": _gpt2,
}
