"""The models that answer in a chat. With an adapter that the base outlives, one load serves both sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from worker.inference.generate import load_model
from worker.training.adapters import CONFIG
from worker.training.model import Hardware, choose_hardware
from worker.training.preload import tokenizer_of
from worker.training.quantization import find_quantization


class Voices:
    """Holds one model at a time, so that a chat needs no more memory than one answer."""

    def __init__(self, payload: Mapping[str, Any], hardware: Hardware | None = None) -> None:
        """`payload` is a chat's; the hardware is chosen from its `device` where none is given."""
        self._base, self._trained = payload["base_model"]["path"], payload["trained"]
        self._hardware = hardware or choose_device(payload["device"])
        self._spec = payload["spec"]
        self._held: tuple[tuple[str, str | None], Any] | None = None
        self.tokenizer = tokenizer_of(self._base)

    @contextmanager
    def speaking(self, side: str, on_load: Callable[[], None]) -> Iterator[Any]:
        """The side's model inside the block; `on_load` is called where it has to be loaded. Raises: ModelLoadError."""
        wanted = self._folders(side)
        if self._held is None or self._held[0] != wanted:
            on_load()
            self._held = None  # before the next one comes
            self._held = (wanted, load_model(*wanted, find_quantization(self._spec), self._hardware))
        model = self._held[1]
        off = side == "base" and wanted[1] is not None
        with model.disable_adapter() if off else nullcontext():
            yield model

    def _folders(self, side: str) -> tuple[str, str | None]:
        """The model's folder, and the adapter's where there is one. A trained whole model takes the base's place."""
        if self._trained is None:
            return self._base, None
        if self._spec.get("method") == "full":
            return (self._base if side == "base" else self._trained), None
        return self._base, self._trained if side == "tuned" or _leaves_biases(self._trained) else None


def _leaves_biases(adapter: str) -> bool:
    """Whether the base is there with the adapter switched off: biases that were trained would stay. An adapter from
    elsewhere has no spec that says so, but a configuration."""
    path = Path(adapter) / CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}  # what is gone is said by the load
    return bool(config.get("bias", "none") == "none")


def choose_device(device: str) -> Hardware:
    """The GPU where there is one, unless the chat is to stay off it."""
    return Hardware(torch.device("cpu"), torch.float32) if device == "cpu" else choose_hardware("auto")
