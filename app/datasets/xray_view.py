"""What the X-ray's page shows of its rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.datasets.xray import FLAG_WORDS, ORDINARY, Flag, Token, Xray, XrayRow, XraySequence, suspicious

PAGE_ROWS = 10
PART_TOKENS = 3_000  # of a row, drawn at once
_NAMED_ROWS = 8  # of those that share a pack
_MARKS = {" ": "\u200b·", "\n": "↵\n", "\t": "⇥\t", "\r": "␍"}  # a line may end before a space
_JOINERS = "\u200c\u200d"  # within words and emoji
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


def visible(text: str) -> str:
    """White space and what cannot be seen, shown: `·`, `↵` at a line's end, `<U+200B>`."""
    return "".join(_MARKS.get(character) or _named(character) for character in text)


def _named(character: str) -> str:
    unseen = unicodedata.category(character) in _UNSEEN and character not in _JOINERS
    return f"<U+{ord(character):04X}>" if unseen else character


@dataclass(frozen=True, slots=True)
class Mark:
    """A flag in words, and whether it is a reason to look at the row."""

    words: str
    odd: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one sequence that are drawn; `begins`: its first one is among them."""

    title: str
    sequence: XraySequence
    tokens: Sequence[Token]
    begins: bool


def marks_of(row: XrayRow) -> list[Mark]:
    """The row's flags."""
    return [Mark(FLAG_WORDS[flag], flag not in ORDINARY) for flag in map(Flag, row["flags"])]


def row_context(row: XrayRow, first: int, max_length: int) -> dict[str, Any]:
    """One row's tokens from the one with the index `first` on, and where those before and behind are."""
    end = min(first + PART_TOKENS, len(row["tokens"]))
    return {
        "row": row,
        "parts": list(_parts(row, first, end)),
        "first_token": first,
        "end_token": end,
        "before": max(0, first - PART_TOKENS) if first else None,
        "behind": end if end < len(row["tokens"]) else None,
        "max_length": max_length,
        "pack_words": pack_words,
        "visible": visible,
    }


def _parts(row: XrayRow, first: int, end: int) -> Iterator[Part]:
    sequences = row["sequences"]
    for number, sequence in enumerate(sequences, start=1):
        start, stop = max(first, sequence["start"]), min(end, sequence["end"])
        if start < stop:
            several = f"Sequence {number} of {len(sequences)}" if len(sequences) > 1 else ""
            title = (sequence["name"] or several).capitalize()
            yield Part(title, sequence, row["tokens"][start:stop], start == sequence["start"])


def pack_words(sequence: XraySequence, row: int, max_length: int) -> str | None:
    """With which rows the sequence shares its pack."""
    pack = sequence["pack"]
    if pack is None:
        return None
    others = [other for other in pack["rows"] if other != row]
    filled = f"{pack['tokens']:,} of {max_length:,} tokens"
    if not others:
        return f"Alone in its pack ({filled})."
    named = ", ".join(f"{other:,}" for other in others[:_NAMED_ROWS])
    more = f" and {len(others) - _NAMED_ROWS} more" if len(others) > _NAMED_ROWS else ""
    place = f"place {pack['place']} of {len(pack['rows'])}"
    return f"In pack {pack['number']:,} ({filled}), {place}, with row{'s' if len(others) > 1 else ''} {named}{more}."


def rows_context(xray: Xray, row: int) -> dict[str, Any]:
    """The rows of a page that begins with `row`, and where the next suspicious one is, as far as that is known."""
    shown = [each for each in xray["rows"] if row <= each["row"] < row + PAGE_ROWS]
    later = (each["row"] for each in xray["rows"] if each["row"] > row and suspicious(each["flags"]))
    last = shown[-1]["row"] if shown else row
    return {
        "rows": shown,
        "marks_of": marks_of,
        "last": last,
        "next_suspicious": next(later, None),
        "search_from": xray["last"] + 1 if xray["last"] < xray["total"] else None,
        "previous_page": max(1, row - PAGE_ROWS) if row > 1 else None,
        "next_page": last + 1 if last < xray["total"] else None,
    }
