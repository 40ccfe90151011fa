"""Secrets of this installation: each a file below the data folder's `secrets/`, readable by its owner only.

No secret is part of a job, an event, a log, a backup or an argument of a process. Web and worker read it from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.core.errors import InvalidInput, NotFound
from app.core.masking import masked, remember
from app.core.paths import DataFolder, write_private

HF_TOKEN = "hf_token"
WEBHOOK_URL = "webhook_url"
SECRETS: Mapping[str, tuple[str, str]] = {  # name -> its environment variable, what it is for
    HF_TOKEN: ("HF_TOKEN", "Hugging Face hub: private and gated models and datasets, and uploads"),
    WEBHOOK_URL: ("LORADECK_WEBHOOK_URL", "where notifications go: whoever knows the address can write there"),
}
SET_HUB_TOKEN = (
    "On the page Settings, or: loradeck secrets set hf_token (HF_TOKEN of the worker's environment works, too)."
)
_MOST_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class SecretView:
    """What may be shown of a secret. `source`: stored, environment, or None where it is not set."""

    name: str
    purpose: str
    variable: str
    source: str | None
    shown: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def find_secret(folder: DataFolder, name: str) -> str | None:
    """The secret: the stored one, else that of the environment of this process; None where there is neither."""
    stored = _read(folder, name)
    value = stored or os.environ.get(SECRETS[name][0], "").strip() or None
    if value is not None:
        remember(value)
    return value


def remember_secrets(folder: DataFolder) -> None:
    """Have this process mask every secret there is, before it logs anything."""
    for name in SECRETS:
        find_secret(folder, name)
        remember(os.environ.get(SECRETS[name][0], "").strip())


def describe_secret(folder: DataFolder, name: str) -> SecretView:
    """Raises: NotFound for a name that no secret has."""
    _require_name(name)
    variable, purpose = SECRETS[name]
    value = find_secret(folder, name)
    source = None if value is None else "stored" if _read(folder, name) else "environment"
    return SecretView(name, purpose, variable, source, None if value is None else masked(value))


def set_secret(folder: DataFolder, name: str, value: str) -> SecretView:
    """Store a secret in place of an earlier one. Raises: NotFound; InvalidInput on `value`, which it does not tell."""
    _require_name(name)
    value = value.strip()
    if not value:
        raise InvalidInput("is empty", field="value")
    if len(value) > _MOST_CHARACTERS:
        raise InvalidInput(f"has more than {_MOST_CHARACTERS} characters; no token has", field="value")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InvalidInput("holds spaces or characters that no token has", field="value")
    remember(value)
    folder.secrets.mkdir(mode=0o700, exist_ok=True)
    write_private(folder.secrets / name, value)
    return describe_secret(folder, name)


def remove_secret(folder: DataFolder, name: str) -> SecretView:
    """Forget the stored secret; one of the environment stays. Raises: NotFound where none is stored."""
    _require_name(name)
    try:
        (folder.secrets / name).unlink()
    except FileNotFoundError:
        raise NotFound(f"No {name} is stored.") from None
    return describe_secret(folder, name)


def _require_name(name: str) -> None:
    if name not in SECRETS:
        raise NotFound(f"There is no secret named {name!r:.80}.", advice=f"Names: {', '.join(SECRETS)}.")


def _read(folder: DataFolder, name: str) -> str | None:
    try:
        return (folder.secrets / name).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
