"""Secrets as they may be shown: everything that is logged, stored as an event or sent as an error passes here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any, TextIO, cast

_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")  # also one that nobody has stored: pasted into a URL, say
_SIGNATURE = re.compile(r"([?&]X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s'\"]+")  # of addresses to upload to
_SHOWN = 4  # of its characters, the last ones, and of a hub token its prefix
_LEAST = 8  # a shorter text is no secret: masking it would tear words apart

_known: set[str] = set()


def remember(secret: str) -> None:
    """From now on this process shows the secret masked only."""
    if len(secret) >= _LEAST:
        _known.add(secret)


def masked(secret: str) -> str:
    """Enough to tell one secret from another: `hf_…abcd`."""
    prefix = "hf_" if secret.startswith("hf_") else ""
    return f"{prefix}…{secret[-_SHOWN:]}" if len(secret) >= 4 * _SHOWN else f"{prefix}…"


def mask(text: str) -> str:
    """The text with every secret masked."""
    for secret in sorted(_known, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, masked(secret))
    if "X-Amz-" in text:
        text = _SIGNATURE.sub(r"\1…", text)
    return _HUB_TOKEN.sub(lambda found: masked(found[0]), text) if "hf_" in text else text


def mask_values(values: Any) -> Any:
    """The same within lists and mappings, their keys among it."""
    if isinstance(values, str):
        return mask(values)
    if isinstance(values, dict):
        return {mask_values(key): mask_values(value) for key, value in values.items()}
    return [mask_values(value) for value in values] if isinstance(values, list | tuple) else values


def masking(stream: TextIO) -> TextIO:
    """The stream for whatever is printed, by libraries too."""
    return cast(TextIO, _MaskingStream(stream))


class _MaskingStream:
    """A text stream but for what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class MaskingFormatter(logging.Formatter):
    """Masks the whole record, its traceback among it."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))
