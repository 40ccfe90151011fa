"""A language model's sizes and linear modules, as far as a plan needs them."""

from __future__ import annotations

from dataclasses import dataclass

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
