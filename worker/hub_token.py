"""Whether the hub's client would find a token by itself. Without the client: it is not in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.core.secrets import HF_TOKEN, SECRETS

_VARIABLES = (SECRETS[HF_TOKEN][0], "HUGGING_FACE_HUB_TOKEN")


def has_own_token(environment: Mapping[str, str]) -> bool:
    """By a variable, or the file that `hf auth login` writes. Source: huggingface_hub.constants, utils/_auth.py."""
    if any(environment.get(name, "").strip() for name in _VARIABLES):
        return True
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    try:
        return bool(Path(environment.get("HF_TOKEN_PATH") or f"{home}/token").expanduser().read_text().strip())
    except (OSError, UnicodeError, RuntimeError):  # RuntimeError: there is no home
        return False
