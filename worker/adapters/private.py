"""An adapter's files name folders of the machine that it was trained on: none of these stays, or is sent on."""

from __future__ import annotations

import json
import re
from pathlib import Path

_CARD = "README.md"
_TOKENIZER = "tokenizer_config.json"
_ITS_PATHS = ("name_or_path", "tokenizer_file", "special_tokens_map_file")  # nothing is read from there again
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def public_name(named: str) -> str:
    """The name of a base model: as it is where the hub may know it by that, else without the folders before it."""
    return named if _HUB_ID.fullmatch(named) else re.split(r"[/\\]", named.rstrip("/\\"))[-1]


def forget_paths(folder: Path, named: str, name: str) -> None:
    """In the model card the base's path becomes its name here; the tokenizer's configuration loses the paths it has."""
    if public_name(named) != named and (card := folder / _CARD).is_file():
        card.write_bytes(card.read_bytes().replace(named.encode(), name.encode()))
    tokenizer = folder / _TOKENIZER
    if not tokenizer.is_file():
        return
    try:
        config = json.loads(tokenizer.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return  # it is said where the tokenizer is loaded
    paths = {key for key in _ITS_PATHS if isinstance(config, dict) and key in config}
    if paths:
        kept = {key: value for key, value in config.items() if key not in paths}
        tokenizer.write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")
