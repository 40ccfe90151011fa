"""A model's config.json, from a file, a folder or plain values; nothing else of the model is needed for a plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.errors import InvalidInput
from app.core.planning.architecture import FIELD

_MAX_BYTES = 1 << 20  # a config is a few kilobytes
NAME = "config.json"


def load_config(path: Path) -> dict[str, Any]:
    """The config in a folder, or in the file itself. Raises: InvalidInput where there is none, or no JSON object."""
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise InvalidInput(f"{path} is neither a model folder nor a {NAME}.", field=FIELD)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InvalidInput(f"{file} is larger than any model's {NAME} ({_MAX_BYTES:,} bytes).", field=FIELD)
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{file} is not readable JSON: {error or type(error).__name__}", field=FIELD) from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{file} does not hold a JSON object.", field=FIELD)
    return config
