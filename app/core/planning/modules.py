"""What the modules of a layer hold while they train, operation by operation as torch and peft compute them.

Sources: peft.tuners.lora.layer, .dora and .bnb; bitsandbytes.autograd._functions; torch.amp's lists of operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.planning.architecture import Linear
from app.core.planning.tape import Tape, Tensor, weight

FP32 = 4


@dataclass(frozen=True, slots=True)
class Learning:
    """What learns, and in which types: bytes of an element of the arithmetic, of the base's weights, of an adapter."""

    compute: int
    frozen: int
    adapter: int
    ranks: Mapping[str, float] = field(default_factory=dict)  # of the adapters, by their linear module's name
    whole: frozenset[str] = frozenset()  # modules trained whole, beside adapters
    base: bool = False  # every weight learns
    dropout: bool = False
    dora: bool = False
    bits: int = 16  # of the base's linear weights: 4 and 8 are quantised

    @property
    def autocast(self) -> bool:
        """Whether products are rounded to a type that is narrower than that of some operand."""
        return self.compute < FP32

    @property
    def base_width(self) -> int:
        return FP32 if self.base else self.frozen


@dataclass(slots=True)
class Modules:
    """Writes modules to a tape. All tensors are for `tokens` tokens, those of a whole batch."""

    tape: Tape
    learning: Learning
    tokens: int
    _casts: dict[Tensor, Tensor] = field(default_factory=dict)

    def cast(self, x: Tensor, width: int) -> Tensor:
        """Itself where it has that width; a parameter's copy is made once, as autocast caches it."""
        if x.width == width:
            return x
        if not x.parameter:
            return self.tape.apply([x], x.elements, width)
        if x not in self._casts:
            self._casts[x] = self.tape.apply([x], x.elements, width)
        return self._casts[x]

    def product(self, x: Tensor, by: Tensor, outputs: float, rows: float | None = None) -> Tensor:
        """x @ by in the type of the arithmetic: each operand is kept where the other's gradient is wanted."""
        width = self.learning.compute
        x, by = self.cast(x, width), self.cast(by, width)
        saves = [each for each, other in ((x, by), (by, x)) if other.learns]
        return self.tape.apply([x, by], (rows or self.tokens) * outputs, width, saves=saves)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self.tape.apply([x, y], max(x.elements, y.elements), max(x.width, y.width), shares=True)

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Element by element; each is kept where the other's gradient is wanted."""
        saves = [each for each, other in ((x, y), (y, x)) if other.learns]
        elements, width = max(x.elements, y.elements), max(x.width, y.width)
        small = min(x.elements, y.elements) < elements and x.learns and y.learns
        return self.tape.apply([x, y], elements, width, saves=saves, temporary=elements * width * small)

    def change(self, x: Tensor, *, saves: bool = False, temporary: float = 0.0) -> Tensor:
        """A function of each element, such as an activation (which keeps its input) or a product with a constant."""
        return self.tape.apply([x], x.elements, x.width, saves=[x] if saves else [], temporary=temporary)

    def linear(self, x: Tensor, module: Linear) -> Tensor:
        """With its adapter, where it has one: W x + s · B A dropout(x)."""
        result = self._base(x, module)
        rank = self.learning.ranks.get(module.name)
        if rank is None:
            return result
        if self.learning.bits == 4:
            result = self.tape.apply([result], result.elements, result.width, shares=True)  # peft clones it
        with self.tape.holding(x, result):
            if self.learning.bits == 16 or not self.learning.autocast:
                x = self.cast(x, self.learning.adapter)
            with self.tape.holding(x):
                total = self._adapted(x, module, rank, result)
            # peft's quantised modules leave it to autocast, though DoRA's sum is float32
            return total if self.learning.bits != 16 and self.learning.autocast else self.cast(total, result.width)

    def _adapted(self, x: Tensor, module: Linear, rank: float, result: Tensor) -> Tensor:
        if self.learning.dora:
            return self._dora(x, module, rank, result)
        return self.add(result, self.change(self._low_rank(self._dropped(x), module, rank)))

    def _base(self, x: Tensor, module: Linear) -> Tensor:
        learning, outputs = self.learning, self.tokens * module.outputs
        if learning.base or module.name in learning.whole:
            return self.product(x, weight(module.weights, learning.base_width, learns=True), module.outputs)
        if learning.bits == 16:
            return self.product(x, weight(module.weights, learning.frozen), module.outputs)
        unpacked = learning.compute * module.weights
        x = self.cast(x, learning.compute)
        if learning.bits == 4:
            return self.tape.apply(
                [x], outputs, learning.compute, temporary=unpacked, forward_temporary=float(unpacked)
            )
        rounding = 3 * x.elements + 4 * outputs  # the input in 16 and in 8 bits, and the product in 32
        return self.tape.apply(
            [x], outputs, learning.compute, saves=[x], clings_to=x, temporary=unpacked, forward_temporary=rounding
        )

    def _dropped(self, x: Tensor) -> Tensor:
        """Dropout keeps a byte for each element."""
        return self.tape.apply([x], x.elements, x.width, saves=[x.elements]) if self.learning.dropout else x

    def _low_rank(self, x: Tensor, module: Linear, rank: float) -> Tensor:
        down = weight(rank * module.inputs, self.learning.adapter, learns=True)
        up = weight(rank * module.outputs, self.learning.adapter, learns=True)
        return self.product(self.product(x, down, rank), up, module.outputs)

    def _dora(self, x: Tensor, module: Linear, rank: float, result: Tensor) -> Tensor:
        """W x + (m / |W + s B A| - 1) · W x + m / |W + s B A| · s · B A x, where the norm is made anew each time.

        Source: DoRA (Liu et al., 2024), section 4.3: the norm is held for a constant.
        """
        tape, base = self.tape, result
        x = self._dropped(x)
        magnitude = weight(module.outputs, FP32, learns=True)
        with tape.holding(x):
            held = self._norm_of_sum(module, x.width)
        with tape.holding(x, held):
            if self.learning.dropout:
                base = self._dora_base(x, module)
            low = self._low_rank(x, module, rank)
            first = tape.apply([magnitude, base], base.elements, FP32, saves=[base], temporary=FP32 * base.elements)
            with tape.holding(first):
                second = tape.apply([magnitude, low], low.elements, FP32, saves=[low], temporary=FP32 * low.elements)
                total = self.add(first, self.change(second))
        return self.add(result, total)

    def _norm_of_sum(self, module: Linear, width: int) -> Tensor:
        """|W + s B A| of each output; returns what its making leaves behind in variables.

        B A is computed by way of a unit matrix, which is kept, then held in the type of the input as W is.
        """
        compute, unit = self.learning.compute, module.inputs * module.inputs
        kept_unit = min(compute, FP32) * unit
        making = kept_unit + FP32 * unit * self.learning.autocast + compute * module.weights
        copies = self.learning.bits != 16 or width != self.learning.frozen  # of W
        left = kept_unit + width * module.weights * (1 + copies)
        most = max(making, left + 2 * width * module.weights)
        self.tape.apply([], module.outputs, width, forward_temporary=float(most))
        return self.tape.input(float(left), 1, learns=False)

    def _dora_base(self, x: Tensor, module: Linear) -> Tensor:
        """W x once more, of the input after dropout; W in the input's type is made for it, and kept."""
        frozen = Tensor(module.weights, x.width, weight(0, 1).storage)
        if self.learning.bits != 16 or x.width != self.learning.frozen or self.learning.autocast:
            frozen = self.tape.apply([weight(module.weights, self.learning.frozen)], module.weights, x.width)
        return self.product(x, frozen, module.outputs)

    def rms_norm(self, x: Tensor, *, of_product: bool = False) -> Tensor:
        """x / |x| in float32, times a weight; `of_product`: the product is float32 too, as Gemma has it."""
        wide = self.cast(x, FP32)
        squares = self.tape.apply([wide], wide.elements, FP32, saves=[wide], temporary=FP32 * wide.elements)
        inverse = self.tape.apply([squares], self.tokens, FP32, saves=[float(FP32 * self.tokens)])
        normed = self.multiply(wide, inverse)
        if not of_product:
            normed = self.cast(normed, x.width)
        scale = weight(x.elements / self.tokens, self.learning.base_width, learns=self.learning.base)
        if of_product and scale.width != FP32:
            scale = weight(scale.elements, FP32, learns=self.learning.base)
        return self.cast(self.multiply(normed, scale), x.width)

    def layer_norm(self, x: Tensor) -> Tensor:
        """One operation, which CUDA's autocast computes in float32."""
        wide = self.cast(x, FP32) if self.learning.autocast else x
        scale = weight(2 * x.elements / self.tokens, self.learning.base_width, learns=self.learning.base)
        return self.tape.apply([wide, scale], x.elements, wide.width, saves=[wide, 8.0 * self.tokens])
