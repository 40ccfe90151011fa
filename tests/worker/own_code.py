"""A tiny model whose configuration and architecture are Python files in its own folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import dynamic_module_utils

from app.core.models.own_code import read_code
from tests.worker.tiny import save_tiny_model

CONFIGURATION = """
# Of the model that touches {marker!r}: one process keeps a class for each text.
from transformers import LlamaConfig


class TinyConfig(LlamaConfig):
    model_type = "tiny_own"
"""
MODELING = """
from pathlib import Path

from transformers import LlamaForCausalLM

from .configuration_tiny import TinyConfig

Path({marker!r}).touch()


class TinyForCausalLM(LlamaForCausalLM):
    config_class = TinyConfig
"""


def save_own_code_model(folder: Path, marker: Path) -> Path:
    """Llama under another name; whoever runs its code touches `marker`."""
    save_tiny_model(folder)
    (folder / "configuration_tiny.py").write_text(CONFIGURATION.format(marker=str(marker)))
    (folder / "modeling_tiny.py").write_text(MODELING.format(marker=str(marker)))
    path = folder / "config.json"
    classes = {
        "AutoConfig": "configuration_tiny.TinyConfig",
        "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM",
    }
    named = {"model_type": "tiny_own", "architectures": ["TinyForCausalLM"], "auto_map": classes}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """What an admin allows of it: SHA-256 by path."""
    return read_code(folder).hashes


@contextmanager
def modules_in(folder: Path) -> Iterator[None]:
    """Where transformers copies such code to and imports it from, rather than the user's cache."""
    path = list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
        yield
    sys.path[:] = path
    for name in [each for each in sys.modules if each.startswith("transformers_modules")]:
        del sys.modules[name]
