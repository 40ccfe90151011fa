"""What autograd holds of a computation, in bytes: operations are written down, and their backward pass is walked.

Each operation keeps for its backward pass what torch's own does (Source: torch/tools/autograd/derivatives.yaml), for as
long as torch does: a tensor dies with its last holder, an operation's tensors once its backward has run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Storage:
    """Memory of one or several tensors. What is counted elsewhere, such as a weight, has no size here."""

    size: float
    holders: int = 0


@dataclass(eq=False, slots=True)
class Tensor:
    """`width` is the bytes of an element. A parameter's gradient stays; the others' go as they are used up."""

    elements: float
    width: int
    storage: Storage
    learns: bool = False
    parameter: bool = False

    @property
    def size(self) -> float:
        return self.elements * self.width


@dataclass(slots=True)
class _Operation:
    inputs: tuple[Tensor, ...]
    output: Tensor
    saved: tuple[Storage, ...]
    shares: bool
    temporary: float


def weight(elements: float, width: int, learns: bool = False) -> Tensor:
    """A parameter, or something else that is counted elsewhere."""
    return Tensor(elements, width, Storage(0), learns, parameter=learns)


@dataclass(slots=True)
class Tape:
    """A computation. Sizes are for the whole batch."""

    forward_peak: float = 0.0
    clinging: float = 0.0  # what operations hold on to by themselves, which checkpointing does not see
    _operations: list[_Operation] = field(default_factory=list)
    _saved: dict[int, Storage] = field(default_factory=dict)
    _kept: float = 0.0
    _clung: dict[int, Storage] = field(default_factory=dict)
    _held: list[Tensor] = field(default_factory=list)

    @property
    def kept(self) -> float:
        """Bytes that wait for the backward pass."""
        return self._kept

    def input(self, elements: float, width: int, learns: bool = True) -> Tensor:
        """A tensor that comes from outside, whose memory counts from the moment that an operation keeps it."""
        return Tensor(elements, width, Storage(elements * width), learns)

    @contextmanager
    def holding(self, *tensors: Tensor) -> Iterator[None]:
        """What is computed inside the block is computed while variables of the code hold these tensors."""
        self._held.extend(tensors)
        yield
        del self._held[-len(tensors) :]

    def apply(
        self,
        inputs: Sequence[Tensor],
        elements: float,
        width: int,
        *,
        saves: Iterable[Tensor | float] = (),
        shares: bool = False,
        keeps_output: bool = False,
        clings_to: Tensor | None = None,
        forward_temporary: float = 0.0,
        temporary: float = 0.0,
    ) -> Tensor:
        """One operation; its output has memory of its own.

        `saves` are tensors, or bytes of what is made for the backward pass alone. `shares`: the output's gradient is
        passed on as it is, a sum's for one. `clings_to` is let go only with the whole graph. The temporaries are bytes
        that live during the operation, or its backward.
        """
        learns = any(each.learns for each in inputs)
        output = Tensor(elements, width, Storage(elements * width), learns)
        storages = {id(each.storage): each.storage for each in (*inputs, *self._held)}
        given = sum(storage.size for key, storage in storages.items() if key not in self._saved)
        kept = [*saves, output] if keeps_output else saves
        saved = tuple(each.storage if isinstance(each, Tensor) else Storage(each) for each in kept) if learns else ()
        self.forward_peak = max(self.forward_peak, self._kept + given + output.size + forward_temporary)
        if clings_to is not None and id(clings_to.storage) not in self._clung:
            self._clung[id(clings_to.storage)] = clings_to.storage
            self.clinging += clings_to.size
        for storage in saved:
            storage.holders += 1
            if id(storage) not in self._saved:
                self._saved[id(storage)] = storage
                self._kept += storage.size
        if learns:
            self._operations.append(_Operation(tuple(inputs), output, saved, shares, temporary))
        return output

    def view(self, tensor: Tensor, elements: float) -> Tensor:
        """A part of a tensor: its gradient is as large as the whole."""
        output = Tensor(elements, tensor.width, tensor.storage, tensor.learns)
        if tensor.learns:
            self._operations.append(_Operation((tensor,), output, (), elements == tensor.elements, 0.0))
        return output

    def backward(self, output: Tensor, *, stays: bool = True) -> float:
        """Peak bytes of the backward pass, what is kept and the gradient of `output` among them.

        `stays`: gradients of parameters stay; else they are added to those of earlier micro-batches, and go.
        """
        return _Backward(self._kept, stays).run(self._operations, output)


class _Backward:
    def __init__(self, live: float, stays: bool) -> None:
        self._live = self._peak = live
        self._stays = stays
        self._pending: dict[int, Storage] = {}  # by the tensor

    def run(self, operations: Sequence[_Operation], output: Tensor) -> float:
        self._pending[id(output)] = self._allocate(output.size)
        for operation in reversed(operations):
            gradient = self._pending.pop(id(operation.output), None)
            if gradient is not None:
                self._step(operation, gradient)
        return self._peak

    def _step(self, operation: _Operation, gradient: Storage) -> None:
        made: list[tuple[Tensor, Storage]] = []
        for tensor in operation.inputs:
            if tensor.learns:
                shares = operation.shares and tensor.size == operation.output.size
                gradient.holders += shares
                made.append((tensor, gradient if shares else self._allocate(tensor.size)))
        self._peak = max(self._peak, self._live + operation.temporary)
        for storage in (*operation.saved, gradient):
            self._release(storage)
        for tensor, storage in made:
            self._accumulate(tensor, storage)

    def _accumulate(self, tensor: Tensor, storage: Storage) -> None:
        if tensor.parameter:
            if not self._stays:
                self._release(storage)
            return
        pending = self._pending.get(id(tensor))
        if pending is None:
            self._pending[id(tensor)] = storage
        elif pending.holders == 1:  # added in place
            self._release(storage)
        else:
            self._pending[id(tensor)] = self._allocate(tensor.size)
            self._release(pending)
            self._release(storage)

    def _allocate(self, size: float) -> Storage:
        self._live += size
        self._peak = max(self._peak, self._live)
        return Storage(size, holders=1)

    def _release(self, storage: Storage) -> None:
        storage.holders -= 1
        if storage.holders == 0:
            self._live -= storage.size
