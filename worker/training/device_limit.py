"""A limit on device memory for tests: training runs out of it as on a smaller card, by numbers and not by chance."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

VARIABLE = "LORADECK_TEST_DEVICE_LIMIT_BYTES"


class DeviceLimitReached(torch.OutOfMemoryError):
    """The live tensors came to more bytes than the limit allows."""

    def __init__(self, live_bytes: int, wanted_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"Out of memory under the limit of {VARIABLE}: {wanted_bytes:,} bytes were wanted beside "
            f"{live_bytes:,} that are in use, of {limit_bytes:,}."
        )
        self.live_bytes, self.limit_bytes = live_bytes, limit_bytes

    def figures(self) -> dict[str, int]:
        """In the allocator's terms; all that is live has been seen, so nothing is reserved beside it."""
        free = max(0, self.limit_bytes - self.live_bytes)
        return {"allocated_bytes": self.live_bytes, "free_bytes": free, "total_bytes": self.limit_bytes}


@contextmanager
def device_limit() -> Iterator[None]:
    """The limit that the environment sets, if any: of CUDA's allocator, or on the CPU of live tensors."""
    limit = os.environ.get(VARIABLE)
    if limit is None:
        yield
    elif torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, int(limit) / total))
        yield
    else:
        with _LiveStorages(int(limit)):
            yield


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts each storage that an operation reads or makes, for as long as it lives. Slow: for tiny models."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = limit_bytes
        self._live = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Raises: DeviceLimitReached; what the operation made is gone then."""
        self._count((args, kwargs))
        before = self._live
        result = function(*args, **(kwargs or {}))
        self._count(result)
        if self._live > self._limit:
            raise DeviceLimitReached(before, self._live - before, self._limit)
        return result

    def _count(self, values: Any) -> None:
        for value in tree_iter(values):
            if isinstance(value, torch.Tensor):
                self._see(value.untyped_storage())

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._live += size
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self._live -= size
