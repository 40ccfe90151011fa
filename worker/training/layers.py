"""Whether each layer of a model that is trained whole learns: it has a gradient, and its weights move."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from typing import Any

import torch

logger = logging.getLogger(__name__)

_LAYER = re.compile(r"(.*?\.\d+)\.")  # model.layers.3 of model.layers.3.mlp.up_proj.weight
_KEPT = 1024  # elements of each tensor that are compared: every weight of a tensor with a gradient moves under AdamW
_NAMED = 3


class LayerWatch:
    """Looks at a model between a backward pass and the optimizer's step, and after that step.

    A single tensor may rightly get no gradient: an expert that no token was sent to, a part for images. A decoder layer
    gets one in any case, since its attention sees every token.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.get_decoder()
        self._layers: dict[str, list[torch.nn.Parameter]] = defaultdict(list)
        for name, parameter in decoder.named_parameters():
            found = _LAYER.match(f".{name}")
            if found and parameter.requires_grad:
                self._layers[found[1].removeprefix(".")].append(parameter)
        self._before = {id(p): _head(p).clone() for group in self._layers.values() for p in group if _learns(p)}
        _report([name for name, p in model.named_parameters() if p.requires_grad and not _learns(p)])

    def __len__(self) -> int:
        return len(self._layers)

    def without_gradient(self) -> list[str]:
        """The layers of which no tensor has a gradient that is anywhere other than zero."""
        return [name for name, group in self._layers.items() if not any(id(p) in self._before for p in group)]

    def unmoved(self) -> list[str]:
        """The layers that are as they were; forgets how they were."""
        before, self._before = self._before, {}
        moved = {
            name: any(id(p) in before and not torch.equal(before[id(p)], _head(p)) for p in group)
            for name, group in self._layers.items()
        }
        return [name for name, any_moved in moved.items() if not any_moved]


def _learns(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.ne(0).any())


def _head(parameter: torch.nn.Parameter) -> torch.Tensor:
    return parameter.detach().flatten()[:_KEPT]


def _report(names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        shown = ", ".join(names[:_NAMED])
        logger.warning("%d tensors received no gradient in the first step: %s%s", len(names), shown, more)
