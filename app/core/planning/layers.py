"""One layer of each family of models, written down as transformers computes it."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.planning.architecture import Architecture, Linear
from app.core.planning.modules import FP32, Modules
from app.core.planning.tape import Tensor, weight


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a batch as attention sees them."""

    rows: int
    length: int
    joined: bool  # one kernel attends to all rows, where otherwise each row's result is copied into one
    mask: bool  # a mask of (length, length) is made for each row, and keys and values are repeated for each head
    by_kernel: bool = True  # that never holds (length, length) for each head: on a CPU there is none with dropout

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def write_layer(modules: Modules, architecture: Architecture, rows: Rows, x: Tensor) -> Tensor:
    """The residual stream behind a layer, of what it was before."""
    if architecture.model_type == "gpt2":
        return _gpt2_layer(modules, architecture, rows, x)
    gemma = architecture.model_type.startswith("gemma")
    twice = architecture.model_type in ("gemma2", "gemma3_text")
    normed = modules.rms_norm(x, of_product=gemma)
    with modules.tape.holding(x, normed):
        attended = _attention(modules, architecture, rows, normed)
    x = modules.add(x, modules.rms_norm(attended, of_product=True) if twice else attended)
    normed = modules.rms_norm(x, of_product=gemma)
    with modules.tape.holding(x, normed):
        changed = (_experts if architecture.experts else _mlp)(modules, architecture, normed)
    return modules.add(x, modules.rms_norm(changed, of_product=True) if twice else changed)


def _attention(modules: Modules, architecture: Architecture, rows: Rows, x: Tensor) -> Tensor:
    named = {linear.name: linear for linear in architecture.linears}
    queries = architecture.heads * architecture.head_dim
    keys = architecture.key_value_heads * architecture.head_dim
    if "qkv_proj" in named:
        together = modules.linear(x, named["qkv_proj"])
        q, k, v = (modules.tape.view(together, rows.tokens * each) for each in (queries, keys, keys))
    else:
        q, k, v = (modules.linear(x, named[name]) for name in ("q_proj", "k_proj", "v_proj"))
    if architecture.head_norms:
        q, k = modules.rms_norm(q), modules.rms_norm(k)
    attended = _attend(modules, architecture, rows, (_rotate(modules, q), _rotate(modules, k), v))
    return modules.linear(attended, named["o_proj"])


def _rotate(modules: Modules, x: Tensor) -> Tensor:
    """x · cos + rotated x · sin, where the angles are constants that all layers share."""
    return modules.add(modules.change(x), modules.change(modules.change(x)))


def _attend(
    modules: Modules, architecture: Architecture, rows: Rows, operands: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Attention that keeps its operands, its result, and a number for each head and token.

    Source: FlashAttention-2 (Dao, 2023).
    """
    tape, width = modules.tape, modules.learning.compute
    q, k, v = (modules.cast(each, width) for each in operands)
    if architecture.eager_attention:
        return _attend_eagerly(modules, architecture, rows, (q, k, v))
    if not rows.by_kernel:
        return _attend_without_kernel(modules, architecture, rows, (q, k, v))
    if rows.mask and architecture.heads > architecture.key_value_heads:
        k, v = (tape.apply([each], q.elements, width) for each in (k, v))
    beside = FP32 * architecture.heads * rows.tokens + rows.mask * width * rows.length * rows.tokens
    apart = 0.0 if rows.joined else q.size  # each row's own result
    return tape.apply([q, k, v], q.elements, width, saves=[q, k, v, beside, apart], keeps_output=rows.joined)


def _attend_eagerly(
    modules: Modules, architecture: Architecture, rows: Rows, operands: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Soft-capped scores of each token with every other, (heads, length, length) for each row, and their softmax."""
    tape, width = modules.tape, modules.learning.compute
    q = operands[0]
    k, v = (tape.apply([each], q.elements, width) for each in operands[1:])
    elements = float(architecture.heads * rows.tokens * rows.length)
    scores = modules.change(modules.change(tape.apply([q, k], elements, width, saves=[q, k])))
    bent = tape.apply([scores], elements, width, keeps_output=True)
    masked = modules.change(modules.change(bent))
    shares = modules.cast(tape.apply([masked], elements, FP32, keeps_output=True, temporary=FP32 * elements), width)
    return tape.apply([shares, v], q.elements, width, saves=[shares, v])


def _attend_without_kernel(
    modules: Modules, architecture: Architecture, rows: Rows, operands: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Scaled queries and keys, the scores' softmax, dropout's factors, and what is left of the scores.

    Source: torch's _scaled_dot_product_attention_math; rows are attended to one by one.
    """
    tape, width = modules.tape, modules.learning.compute
    q, k = (modules.change(each) for each in operands[:2])
    elements = float(architecture.heads * rows.tokens * rows.length)
    scores = tape.apply([q, k], elements, width, saves=[q, k])
    shares = tape.apply([scores], elements, width, keeps_output=True)
    left = tape.apply([shares], elements, width, saves=[width * elements])
    attended = tape.apply([left, operands[2]], q.elements, width, saves=[left, operands[2]])
    return tape.apply([attended], q.elements, width)


def _mlp(modules: Modules, architecture: Architecture, x: Tensor) -> Tensor:
    named = {linear.name: linear for linear in architecture.linears}
    return modules.linear(_gated(modules, x, named), named["down_proj"])


def _gated(modules: Modules, x: Tensor, named: dict[str, Linear]) -> Tensor:
    if "gate_up_proj" in named:
        together = modules.linear(x, named["gate_up_proj"])
        gate, up = (modules.tape.view(together, together.elements / 2) for _ in range(2))
    else:
        gate, up = (modules.linear(x, named[name]) for name in ("gate_proj", "up_proj"))
    return modules.multiply(modules.change(gate, saves=True), up)


def _experts(modules: Modules, architecture: Architecture, x: Tensor) -> Tensor:
    """The experts of all tokens side by side, each token as often as it has experts, in one grouped product.

    Source: transformers.integrations.moe.grouped_mm_experts_forward; an adapter's experts are added to the base's
    before the product (peft.tuners.lora.layer.ParamWrapper).
    """
    tape, rows = modules.tape, modules.tokens * architecture.experts_per_token
    hidden, inner, width = architecture.hidden, architecture.intermediate, modules.learning.compute
    chosen = tape.apply([x], rows * hidden, x.width, saves=[8.0 * rows])
    together = _grouped(modules, architecture, chosen, "gate_up_proj", 2 * inner, rows)
    gate, up = (tape.view(together, rows * inner) for _ in range(2))
    changed = modules.multiply(modules.change(gate, saves=True), up)
    down = _grouped(modules, architecture, changed, "down_proj", hidden, rows)
    router = weight(rows, FP32, learns=True)  # the chosen experts' shares
    weighed = tape.apply([down, router], down.elements, FP32, saves=[down], temporary=FP32 * down.elements)
    ordered = tape.apply([weighed], weighed.elements, FP32, saves=[8.0 * rows])
    summed = tape.apply([ordered], x.elements, FP32)
    return modules.cast(summed, max(width, x.width))


def _grouped(modules: Modules, architecture: Architecture, x: Tensor, name: str, outputs: int, rows: float) -> Tensor:
    learning, elements = modules.learning, architecture.experts * outputs * x.elements / rows
    stack = weight(elements, learning.base_width, learns=learning.base)
    if name in learning.ranks:
        rank = learning.ranks[name] * architecture.experts * (outputs + x.elements / rows)
        factors = modules.cast(weight(rank, learning.adapter, learns=True), learning.frozen)
        stack = modules.tape.apply([stack, factors], elements, learning.frozen, saves=[factors])
    x = modules.cast(x, stack.width)
    saves = [each for each, other in ((x, stack), (stack, x)) if other.learns]
    return modules.tape.apply([x, stack], rows * outputs, stack.width, saves=saves)


def _gpt2_layer(modules: Modules, architecture: Architecture, rows: Rows, x: Tensor) -> Tensor:
    """Layer norms, one product for queries, keys and values, GELU by tanh, and dropout behind both halves."""
    named = {linear.path: linear for linear in architecture.linears}
    normed = modules.layer_norm(x)
    with modules.tape.holding(x, normed):
        together = modules.linear(normed, named["attn.c_attn"])
        q, k, v = (modules.tape.view(together, together.elements / 3) for _ in range(3))
        attended = modules.linear(_attend(modules, architecture, rows, (q, k, v)), named["attn.c_proj"])
    x = modules.add(_residual_dropout(modules, attended), x)
    normed = modules.layer_norm(x)
    with modules.tape.holding(x, normed):
        inner = _gelu_by_tanh(modules, modules.linear(normed, named["mlp.c_fc"]))
        changed = modules.linear(inner, named["mlp.c_proj"])
    return modules.add(x, _residual_dropout(modules, changed))


def _residual_dropout(modules: Modules, x: Tensor) -> Tensor:
    return modules.tape.apply([x], x.elements, x.width, saves=[x.elements])


def _gelu_by_tanh(modules: Modules, x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), each operation by itself; CUDA's autocast takes x³ in float32."""
    tape, wide = modules.tape, modules.cast(x, FP32) if modules.learning.autocast else x
    half = modules.change(x)
    with tape.holding(x, half):
        cube = modules.change(modules.change(wide, saves=True, temporary=2 * wide.size))
        inside = modules.change(modules.add(x, cube))
        bent = tape.apply([inside], inside.elements, inside.width, keeps_output=True)
        return modules.multiply(half, modules.change(bent))
