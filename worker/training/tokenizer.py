"""The tokenizer of a local folder, loaded without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from app.core.errors import ModelLoadError
from worker.own_code import from_folder


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a local folder; code from it only where that is allowed. Raises: ModelLoadError."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(path), **from_folder(path))
    except (OSError, ValueError, KeyError) as error:
        raise load_error("tokenizer", path, error) from error
    for how_it_was_loaded in ("is_local", "local_files_only"):  # would be saved with it
        tokenizer.init_kwargs.pop(how_it_was_loaded, None)
    return tokenizer


def load_error(what: str, path: str | Path, error: Exception) -> ModelLoadError:
    """What in the folder could not be loaded, and why."""
    return ModelLoadError(
        f"The {what} in {path} could not be loaded: {error}",
        advice="Register the model again: a folder with config.json, *.safetensors and the tokenizer's files.",
    )
