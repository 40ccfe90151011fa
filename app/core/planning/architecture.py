"""A language model's sizes and linear modules, from its config.json alone: no weights, no torch.

Source: the modelling code of each family in transformers 5; a test compares every count with the real classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import Fault, InvalidInput

_LIMITS = {"num_hidden_layers": 1_000, "vocab_size": 10_000_000}  # what is beyond is a damaged or hostile file
_LIMIT = 1_000_000
FIELD = "base_model"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear module that every layer has, as LoRA can target it: `inputs` features to `outputs`."""

    path: str  # inside its layer, as self_attn.q_proj
    inputs: int
    outputs: int
    bias: bool = False
    stack: int = 1  # a module of experts: how many matrices of an adapter's rank lie side by side

    @property
    def name(self) -> str:
        """What `target_modules` calls it."""
        return self.path.rpartition(".")[2]

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + self.outputs * self.bias


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a decoder whose layers are all alike. Parameters are counts."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    max_length: int | None  # positions that it was made for, in tokens
    linears: tuple[Linear, ...]  # of one layer
    other_layer_parameters: int  # of one layer: norms, experts, router
    embedding_parameters: int  # tokens and, where they are learned, positions
    head_parameters: int  # 0 where the head shares the embedding's weight
    final_norm_parameters: int
    layer_prefix: str = "model.layers"
    norm_biases: int = 0  # of all norms together
    stacks: tuple[Linear, ...] = ()  # of one layer: what peft targets beside `linears`, but under all-linear alone
    head_norms: bool = False  # queries and keys are normed head by head
    experts: int = 0  # of each layer, where its MLP is a mixture of them
    experts_per_token: int = 0
    soft_cap: bool = False  # of the logits
    eager_attention: bool = False  # transformers computes it without a kernel, (length, length) for each head
    attention_dropout: bool = False
    window: int | None = None  # tokens that attention looks back over, where it is not all of them

    @property
    def parameters(self) -> int:
        """All of them, a shared weight once."""
        layer = sum(linear.parameters for linear in self.linears) + self.other_layer_parameters
        return self.layers * layer + self.embedding_parameters + self.head_parameters + self.final_norm_parameters

    @property
    def linear_weights(self) -> int:
        """Weights of the layers' linear modules: what is quantised."""
        return self.layers * sum(linear.weights for linear in self.linears)

    @property
    def module_names(self) -> list[str]:
        """What `target_modules` can name, sorted."""
        return sorted({linear.name for linear in self.linears})


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes that every family spells alike, and the whole config for what it does not."""

    config: Mapping[str, Any]
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.key_value_heads * self.head_dim


def read_architecture(config: Mapping[str, Any]) -> Architecture:
    """Raises: InvalidInput for what is not the config of a known language model, or has impossible sizes."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        message = f"cannot be planned: its config.json says model_type {model_type!r:.60}"
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
    sizes = _read_sizes(config, head_dim)
    bias = (query_bias, output_bias, mlp_bias)
    linears = (_fused_linears if fused else _linears)(sizes, bias)
    linears = tuple(linear for linear in linears if not (experts and linear.path.startswith("mlp.")))
    norm_weights = norms * sizes.hidden + 2 * sizes.head_dim * head_norms
    several = _size(config, "num_local_experts") if experts else 0
    return Architecture(
        str(config["model_type"]),
        sizes.layers,
        sizes.hidden,
        sizes.heads,
        sizes.key_value_heads,
        sizes.head_dim,
        sizes.intermediate,
        sizes.vocabulary,
        _positions(config, "max_position_embeddings"),
        linears,
        norm_weights + several * (sizes.hidden + 3 * sizes.hidden * sizes.intermediate),
        sizes.vocabulary * sizes.hidden,
        0 if _flag(config, "tie_word_embeddings", tied) else sizes.vocabulary * sizes.hidden,
        sizes.hidden,
        stacks=_expert_stacks(sizes, several) if experts else (),
        head_norms=head_norms,
        experts=several,
        experts_per_token=_size(config, "num_experts_per_tok", 2) if experts else 0,
        soft_cap=capped and config.get("final_logit_softcapping", True) is not None,
        eager_attention=capped,
        window=_window(config),
    )


def _linears(sizes: _Sizes, bias: tuple[bool, bool, bool]) -> tuple[Linear, ...]:
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


def _fused_linears(sizes: _Sizes, _bias: tuple[bool, bool, bool]) -> tuple[Linear, ...]:
    return (
        Linear("self_attn.qkv_proj", sizes.hidden, sizes.queries + 2 * sizes.keys),
        Linear("self_attn.o_proj", sizes.queries, sizes.hidden),
        Linear("mlp.gate_up_proj", sizes.hidden, 2 * sizes.intermediate),
        Linear("mlp.down_proj", sizes.intermediate, sizes.hidden),
    )


def _expert_stacks(sizes: _Sizes, experts: int) -> tuple[Linear, ...]:
    """The router, and the experts, whose matrices transformers holds as two tensors and peft targets as they are.

    Source: peft.utils.transformers_weight_conversion; the first tensor holds two matrices, and its rank is doubled.
    """
    return (
        Linear("mlp.gate", sizes.hidden, experts),
        Linear("mlp.experts.gate_up_proj", sizes.hidden, 2 * sizes.intermediate, stack=2 * experts),
        Linear("mlp.experts.down_proj", sizes.intermediate, sizes.hidden, stack=experts),
    )


def _llama(config: Mapping[str, Any]) -> Architecture:
    attention = _flag(config, "attention_bias", False)
    mlp = _flag(config, "mlp_bias", False)
    return _decoder(config, query_bias=attention, output_bias=attention, mlp_bias=mlp)


def _qwen3(config: Mapping[str, Any]) -> Architecture:
    bias = _flag(config, "attention_bias", False)
    return _decoder(config, query_bias=bias, output_bias=bias, head_norms=True, head_dim=128)


def _gpt2(config: Mapping[str, Any]) -> Architecture:
    """Conv1D modules with biases, learned positions, layer norms of weight and bias, the head always tied."""
    hidden, heads, layers = _size(config, "n_embd"), _size(config, "n_head"), _size(config, "n_layer")
    inner = _size(config, "n_inner", 4 * hidden)
    vocabulary, positions = _size(config, "vocab_size"), _size(config, "n_positions", 1024)
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


def _read_sizes(config: Mapping[str, Any], head_dim: int | None) -> _Sizes:
    hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    return _Sizes(
        config,
        _size(config, "num_hidden_layers"),
        hidden,
        heads,
        _size(config, "num_key_value_heads", heads),
        _size(config, "head_dim", head_dim or hidden // heads),
        _size(config, "intermediate_size"),
        _size(config, "vocab_size"),
    )


def _size(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number from 1 to what is possible. Raises: InvalidInput."""
    value = default if config.get(name) is None else config[name]
    limit = _LIMITS.get(name.replace("n_layer", "num_hidden_layers"), _LIMIT)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise InvalidInput([Fault(FIELD, f"cannot be planned: its config.json says {name} = {value!r:.60}")])
    return value


def _window(config: Mapping[str, Any]) -> int | None:
    """Where the config says none, what transformers takes then: 4,096 in some families."""
    if not _flag(config, "use_sliding_window", not str(config["model_type"]).startswith("qwen")):
        return None
    usual = 4096 if config["model_type"] in ("mistral", "gemma2", "gemma3_text") else None
    return (
        _size(config, "sliding_window")
        if config.get("sliding_window") is not None
        else (usual if "sliding_window" not in config else None)
    )


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    return bool(config.get(name, default))


def _positions(config: Mapping[str, Any], name: str) -> int | None:
    return _size(config, name) if config.get(name) is not None else None
