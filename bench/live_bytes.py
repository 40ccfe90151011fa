"""Counts every tensor storage that is alive, real or fake, and the most bytes there were."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Inside the block each storage that an operation makes is counted for as long as it lives.

    What an operation makes and drops inside of itself is not seen, as with a kernel's own workspace. While
    `adds_in_place` is set a sum takes no memory of its own: a backward pass adds in place, but to fake tensors.
    """

    def __init__(self, held: Iterable[Any] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.adds_in_place = False
        self._known: dict[int, weakref.ref[Any]] = {}
        for tensor in held:
            self.see(tensor)

    def see(self, tensor: Any) -> None:
        """Count the tensor's storage, once, for as long as it lives."""
        self._count(tensor)
        self.peak = max(self.peak, self.live)

    def _count(self, tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor):
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self.live += size
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self.live -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            self._count(value)
        if not (self.adds_in_place and _adds_gradients(function, result)):
            self.peak = max(self.peak, self.live)
        return result


def _adds_gradients(function: Any, result: Any) -> bool:
    """Those of a weight that is used twice, of two dimensions, are not added in place."""
    return function is torch.ops.aten.index_put.default or (function is torch.ops.aten.add.Tensor and result.dim() > 2)
