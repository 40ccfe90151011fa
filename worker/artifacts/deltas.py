"""What an adapter does to one weight: added in fp32, in the order of operations of peft's own merge.

Rows are those of the weight as it is stored: (out, in), or (in, out) in GPT-2's Conv1D, which is `transposed` here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import frexp
from typing import Protocol

import torch

from worker.artifacts.tensors import Stored, read_tensor


class Change(Protocol):
    """Made to some rows of a weight at a time, or to all at once where it is `whole`."""

    whole: bool

    def load(self) -> None:
        """Read the adapter's part."""

    def free(self) -> None:
        """Hold it no longer."""

    def apply(self, weight: torch.Tensor, first: int) -> None:
        """Change the fp32 rows in place; `first` is the number of the first one."""


@dataclass(slots=True)
class LowRank:
    """W + scaling · B · A; with a magnitude m (DoRA) m / ‖W + scaling · B · A‖ times that, the norm of each output.

    A is (r, in), B (out, r). Of an embedding, whose weight is (words, width), A is (r, words) and B (width, r).
    Source: https://arxiv.org/abs/2106.09685, https://arxiv.org/abs/2402.09353.
    """

    a: Stored
    b: Stored
    scaling: float
    transposed: bool
    whole: bool
    magnitude: Stored | None = None
    _a: torch.Tensor = field(init=False)
    _b: torch.Tensor = field(init=False)
    _m: torch.Tensor | None = field(init=False)
    _left: float = field(init=False, default=1.0)  # of the scaling, to be multiplied with once B and A are
    _scratch: torch.Tensor = field(init=False)

    def load(self) -> None:
        self._a, self._b = read_tensor(self.a), read_tensor(self.b)
        self._m = read_tensor(self.magnitude).flatten() if self.magnitude is not None else None
        self._left, self._scratch = self.scaling, torch.empty(0)
        if abs(frexp(self.scaling)[0]) == 0.5:  # a power of two changes no digit, wherever it is multiplied
            self._b, self._left = self._b * self.scaling, 1.0

    def free(self) -> None:
        self._a = self._b = self._scratch = torch.empty(0)
        self._m = None

    def apply(self, weight: torch.Tensor, first: int) -> None:
        weight += self._delta(first, first + len(weight))
        if self._m is None:
            return
        if self.transposed:
            weight *= self._m / torch.linalg.norm(weight.T, dim=1)
        else:
            weight *= (self._m[first : first + len(weight)] / torch.linalg.norm(weight, dim=1)).view(-1, 1)

    def _delta(self, first: int, last: int) -> torch.Tensor:
        """scaling · B · A of these rows of the stored weight. Its memory is used again with the next ones."""
        if self.transposed:
            delta = torch.mm(self._b, self._a[:, first:last], out=self._space(len(self._b), last - first))
        else:
            delta = torch.mm(self._b[first:last], self._a, out=self._space(last - first, self._a.shape[1]))
        if self._left != 1.0:
            delta *= self._left
        return delta.T if self.transposed else delta

    def _space(self, rows: int, columns: int) -> torch.Tensor:
        if self._scratch.numel() < rows * columns:
            self._scratch = torch.empty(rows * columns)
        return self._scratch[: rows * columns].view(rows, columns)


@dataclass(slots=True)
class Added:
    """b + scaling · b', of a bias."""

    addend: Stored
    scaling: float
    whole: bool = field(init=False, default=True)
    _addend: torch.Tensor = field(init=False)

    def load(self) -> None:
        self._addend = read_tensor(self.addend) * self.scaling

    def free(self) -> None:
        self._addend = torch.empty(0)

    def apply(self, weight: torch.Tensor, first: int) -> None:
        weight += self._addend[first : first + len(weight)].view(weight.shape)
