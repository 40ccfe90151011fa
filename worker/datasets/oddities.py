"""Odd characters in a row's texts: lost, decoded wrongly, or not to be seen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from app.core.datasets.report import ProblemKind

_SHOWN = 24  # characters on either side
_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff"
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# Joiners belong to emoji and to several scripts; beside Latin letters and digits they are out of place. Tags belong to
# flags.
_JOINERS, _TAGS = "\u200c\u200d", "\U000e0000-\U000e007f"
_ALWAYS_INVISIBLE = "\u00ad\u200b\u2060-\u2064\ufeff"
_INVISIBLE = (
    f"[{_ALWAYS_INVISIBLE}]|(?<=[A-Za-z0-9])[{_JOINERS}]|[{_JOINERS}](?=[A-Za-z0-9])|(?<![\U0001f3f4{_TAGS}])[{_TAGS}]"
)


def _as_windows_1252(first: int, last: int) -> list[str]:
    """Bytes as Windows-1252 shows them; the five that it does not know as Latin-1 does."""
    return [bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(first, last + 1)]


# UTF-8 that was read as Windows-1252: a leading byte and what must follow it. Of pairs only those that stand for Latin,
# Greek and Cyrillic letters are looked for. What may well follow a letter (quotation marks, a hard space, the square of
# a unit) does not count where the letter occurs in texts.
_FOLLOWING = _as_windows_1252(0x80, 0xBF)
_QUOTES = "\u2018\u2019\u201c\u201d\u2039\u203a\u2026\u2013\u2014\u00ab\u00bb"
_NO_QUOTES = re.escape("".join(mark for mark in _FOLLOWING if mark not in _QUOTES))
_STRICT = re.escape("".join(mark for mark in _FOLLOWING if mark not in _QUOTES + "\u00a0\u00b2\u00b3\u00b0\u00b7"))
_ANY = re.escape("".join(_FOLLOWING))
_MOJIBAKE = (
    f"[\u00c2\u00c3][{_NO_QUOTES}]|[\u00c4\u00c5\u00ce-\u00d1][{_STRICT}]"
    f"|[\u00e0-\u00ef][{_STRICT}][{_ANY}]|\u00f0[{_STRICT}][{_ANY}]{{2}}"
)

_KINDS = {
    "replacement": (ProblemKind.REPLACEMENT_CHARACTER, "\ufffd"),
    "mojibake": (ProblemKind.MOJIBAKE, _MOJIBAKE),
    "bidi": (ProblemKind.BIDI_CONTROL, f"[{_BIDI}]"),
    "invisible": (ProblemKind.INVISIBLE_CHARACTER, _INVISIBLE),
    "control": (ProblemKind.CONTROL_CHARACTER, f"[{_CONTROL}]"),
}
_ODD = re.compile("|".join(f"(?P<{name}>{pattern})" for name, (_, pattern) in _KINDS.items()))
_MAY_BE_ODD = re.compile(  # one class, which is searched many times as fast
    f"[\ufffd{_CONTROL}{_BIDI}{_ALWAYS_INVISIBLE}{_JOINERS}{_TAGS}\u00c2-\u00c5\u00ce-\u00d1\u00e0-\u00f0]"
)


def find_oddities(value: Any, field: str = "") -> Iterator[tuple[ProblemKind, str, str]]:
    """(kind, field, message) of each text's first oddity of each kind; a field reads `messages[1].content`."""
    if isinstance(value, str):
        yield from ((kind, field, message) for kind, message in _in_text(value))
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from find_oddities(child, f"{field}.{name}" if field else str(name))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from find_oddities(child, f"{field}[{index}]")


def _in_text(text: str) -> Iterator[tuple[ProblemKind, str]]:
    if not _MAY_BE_ODD.search(text):
        return
    seen: set[ProblemKind] = set()
    for match in _ODD.finditer(text):
        kind, _ = _KINDS[match.lastgroup or ""]
        if kind not in seen:
            seen.add(kind)
            yield kind, _describe(kind, match, text)


def _describe(kind: ProblemKind, match: re.Match[str], text: str) -> str:
    start, end = match.span()
    around = _visible(text[max(0, start - _SHOWN) : end + _SHOWN])
    where = f"at character {start + 1:,}: “{around}”"
    if kind is ProblemKind.MOJIBAKE:
        found = match.group()
        return f"reads {_visible(found)} where {_meant(found)} was probably meant, {where}"
    return f"holds {_name(match.group())} {where}"


def _meant(found: str) -> str:
    """What the bytes say as UTF-8."""
    of_1252 = [character.encode("cp1252", "ignore") or character.encode("latin-1") for character in found]
    return _visible(b"".join(of_1252).decode("utf-8", "replace"))


def _name(character: str) -> str:
    name = unicodedata.name(character, "").lower()
    return f"U+{ord(character):04X}" + (f" ({name})" if name else "")


def _visible(text: str) -> str:
    """In one line; what cannot be seen, or would move what follows, as its number."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else f"<U+{ord(character):04X}>"
        for character in text
    )
