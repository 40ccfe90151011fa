"""What a job trains: parameters by kind, from the architecture and the spec. Exact, as peft would make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from app.core.errors import Fault, InvalidInput
from app.core.jobs.spec import TrainingSpec
from app.core.planning.architecture import Architecture, Linear
from app.core.planning.patterns import compile_pattern
from app.core.planning.state import Learned

FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Trainable:
    """Counts of trainable parameters."""

    adapter: int = 0  # LoRA's matrices, and DoRA's magnitudes
    biases: int = 0
    copies: int = 0  # modules trained whole, as copies beside the frozen ones
    base: int = 0  # the model's own weights, under `method: full`

    @property
    def total(self) -> int:
        return self.adapter + self.biases + self.copies + self.base

    @property
    def added(self) -> int:
        """What the model holds beyond its own parameters."""
        return self.adapter + self.copies


def count_trainable(architecture: Architecture, spec: TrainingSpec) -> Trainable:
    """Raises: InvalidInput at `target_modules` or `modules_to_save` for a module that the model does not have, and at
    `rank_pattern` for an expression that is not tried.
    """
    if spec.method == "full":
        return Trainable(base=architecture.parameters)
    targets = targeted(architecture, spec)
    return Trainable(
        adapter=sum(_adapter_parameters(architecture, linear, spec) for linear in targets),
        biases=_bias_parameters(architecture, targets, spec.bias),
        copies=sum(_whole_module(architecture, name) for name in spec.modules_to_save),
    )


def learned_tensors(architecture: Architecture, spec: TrainingSpec, width: int) -> list[Learned]:
    """What learns, tensor by tensor. Adapters and a model that is trained whole are in float32; copies of modules, and
    biases, in the base's type, of `width` bytes an element. Raises: InvalidInput as `count_trainable`.
    """
    if spec.method == "full":
        return _base_tensors(architecture)
    targets = targeted(architecture, spec)
    tensors = [each for linear in targets for each in _adapter_tensors(architecture, linear, spec)]
    for name in spec.modules_to_save:
        tensors.append(Learned(_whole_module(architecture, name), width))
    biases = _bias_parameters(architecture, targets, spec.bias)
    return [*tensors, Learned(biases, width)] if biases else tensors


def _adapter_tensors(architecture: Architecture, linear: Linear, spec: TrainingSpec) -> Iterator[Learned]:
    for rank, layers in Counter(_ranks(architecture, linear, spec)).items():
        yield Learned(rank * linear.stack * linear.inputs, FP32_BYTES, layers)
        yield Learned(rank * linear.stack * linear.outputs, FP32_BYTES, layers)
    if spec.use_dora:
        yield Learned(linear.outputs, FP32_BYTES, architecture.layers)


def _base_tensors(architecture: Architecture) -> list[Learned]:
    tensors = [Learned(linear.weights, FP32_BYTES, architecture.layers) for linear in architecture.linears]
    if architecture.head_parameters:
        tensors.append(Learned(architecture.head_parameters, FP32_BYTES))
    tensors.append(Learned(architecture.embedding_parameters, FP32_BYTES))
    rest = architecture.parameters - sum(tensor.elements * tensor.count for tensor in tensors)
    return [*tensors, Learned(architecture.hidden, FP32_BYTES, max(1, rest // architecture.hidden))]


def targeted(architecture: Architecture, spec: TrainingSpec) -> tuple[Linear, ...]:
    """The linear modules of a layer that carry an adapter. Raises: InvalidInput."""
    if isinstance(spec.target_modules, str):
        if architecture.stacks and spec.lora_dropout:
            message = "must be 0 here: with all-linear peft adapts the experts too, which it does without dropout alone"
            raise InvalidInput(
                [Fault("lora_dropout", message, "Or name target modules: q_proj, k_proj, v_proj, o_proj.")]
            )
        return (*architecture.linears, *architecture.stacks)
    unknown = [name for name in spec.target_modules if name not in architecture.module_names]
    if unknown or not spec.target_modules:
        known = ", ".join(architecture.module_names)
        message = f"unknown {', '.join(unknown)}; the model has: {known}" if unknown else "is empty"
        raise InvalidInput([Fault("target_modules", message, f"Choose from {known}, or all-linear.")])
    return tuple(linear for linear in architecture.linears if linear.name in spec.target_modules)


def adapter_file_bytes(trainable: Trainable, spec: TrainingSpec) -> int:
    """Bytes of the saved weights in fp32: PiSSA and OLoRA are saved with twice the rank, so that they fit the base."""
    widened = 2 if spec.init_lora_weights.startswith(("pissa", "olora")) else 1
    return FP32_BYTES * (widened * trainable.adapter + trainable.biases + trainable.copies)


def _adapter_parameters(architecture: Architecture, linear: Linear, spec: TrainingSpec) -> int:
    """Of one linear module in all layers: A is (r, in), B is (out, r), DoRA's magnitude (out)."""
    per_rank = linear.stack * (linear.inputs + linear.outputs)
    magnitudes = architecture.layers * linear.outputs * spec.use_dora
    return per_rank * sum(_ranks(architecture, linear, spec)) + magnitudes


def mean_rank(architecture: Architecture, linear: Linear, spec: TrainingSpec) -> float:
    """Over the layers."""
    return sum(_ranks(architecture, linear, spec)) / architecture.layers


def _ranks(architecture: Architecture, linear: Linear, spec: TrainingSpec) -> Iterator[int]:
    """The rank in each layer. A pattern matches a module's full name from a dot on; the first that does decides."""
    if not spec.rank_pattern:
        yield from [spec.r] * architecture.layers
        return
    patterns = [(compile_pattern(pattern), rank) for pattern, rank in spec.rank_pattern.items()]
    for layer in range(architecture.layers):
        full = f"{architecture.layer_prefix}.{layer}.{linear.path}"
        yield next((rank for pattern, rank in patterns if pattern.match(full)), spec.r)


def _bias_parameters(architecture: Architecture, targets: tuple[Linear, ...], which: str) -> int:
    if which == "none":
        return 0
    linears = architecture.linears if which == "all" else targets
    of_norms = architecture.norm_biases if which == "all" else 0
    return architecture.layers * sum(linear.outputs for linear in linears if linear.bias) + of_norms


def _whole_module(architecture: Architecture, name: str) -> int:
    """Raises: InvalidInput where the model has no such module, or it shares its weight with another."""
    tied = not architecture.head_parameters
    embedding = architecture.vocabulary * architecture.hidden
    if name in ("lm_head", *_EMBEDDINGS) and tied:
        raise InvalidInput("is tied: embeddings and head share one weight; leave it out", field="modules_to_save")
    sizes = {"lm_head": architecture.head_parameters, **dict.fromkeys(_EMBEDDINGS, embedding)}
    sizes |= {linear.name: architecture.layers * linear.parameters for linear in architecture.linears}
    if name not in sizes:
        raise InvalidInput(f"cannot be planned with {name}; it can with {', '.join(sizes)}", field="modules_to_save")
    return sizes[name]


_EMBEDDINGS = ("embed_tokens", "wte")
