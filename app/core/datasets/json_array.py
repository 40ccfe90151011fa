"""Read a JSON array one value at a time, from a window that slides over the text: no file is held whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn, TextIO

from app.core.errors import DatasetFormatError

_CHUNK_CHARACTERS = 256 * 1024
_MARGIN_CHARACTERS = 16  # what a cut may spoil: the start of a number, word or escape lies no further before it
_SPACE = re.compile(r"[ \t\n\r]*")


def read_array(file: TextIO, max_characters: int) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) of a text that begins with `[`.

    Raises: DatasetFormatError with row, line and column where it is not JSON, or a value is longer than the limit.
    """
    window = _Window(file, max_characters)
    window.next_character()
    window.at += 1
    number, mark = 0, window.next_character()
    if mark == "]":
        window.at += 1
    while mark != "]":
        number += 1
        yield number, window.value(number)
        mark = window.separator(number)
    if window.next_character():
        raise DatasetFormatError(f"Something follows the array's end ({window.place(window.at)}).", field="file")


class NotJson(ValueError):
    """NaN or infinity, which Python's parser would take as a number."""


def refuse_constant(name: str) -> NoReturn:
    """What Python's parser would take as a number, though it is none in JSON. Raises: NotJson."""
    raise NotJson(f"{name} is not a JSON value")


def reason(error: Exception) -> str:
    """Why a text is not JSON, without its place."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return error.msg if isinstance(error, JSONDecodeError) else str(error).partition(";")[0]


_DECODER = JSONDecoder(parse_constant=refuse_constant)


class _Window:
    """A piece of the text; what lies before `at` has been read and is dropped with the next chunk."""

    def __init__(self, file: TextIO, max_characters: int) -> None:
        self._file = file
        self._max_characters = max_characters
        self._text = ""
        self._ended = False
        self._line, self._column = 1, 1  # of the piece's first character
        self.at = 0

    def next_character(self) -> str:
        """The next character that is no white space, without reading it; "" at the end."""
        while True:
            self.at = _SPACE.match(self._text, self.at).end()  # type: ignore[union-attr]  # matches nothing, too
            if self.at < len(self._text) or self._ended:
                return self._text[self.at : self.at + 1]
            self._slide(_CHUNK_CHARACTERS)

    def separator(self, number: int) -> str:
        """Read the comma or bracket behind a value."""
        mark = self.next_character()
        if mark not in (",", "]"):
            raise self._broken(number, "Expecting ',' or ']' after it" if mark else "the file ends behind it", self.at)
        self.at += 1
        return mark

    def value(self, number: int) -> Any:
        """Read a value, with as much more of the text as that takes."""
        self.next_character()
        more = _CHUNK_CHARACTERS
        while True:
            value, end, is_cut = self._decode(number)
            if end - self.at > self._max_characters:
                place, limit = self.place(self.at), self._max_characters
                raise DatasetFormatError(f"Row {number} ({place}) is longer than {limit:,} characters.", field="file")
            if not is_cut:
                self.at = end
                return value
            self._slide(more)
            more *= 2  # so that a long value is parsed a few times, not once for every chunk

    def _decode(self, number: int) -> tuple[Any, int, bool]:
        """(value, its end, whether the piece may end within it)."""
        try:
            value, end = _DECODER.raw_decode(self._text, self.at)
        except (ValueError, RecursionError) as error:
            if self._is_cut_off(error):
                return None, len(self._text), True
            raise self._broken(number, reason(error), getattr(error, "pos", self.at)) from error
        return value, end, isinstance(value, int | float) and self._is_near_cut(end)

    def place(self, position: int) -> str:
        """Line and column of a position in the piece."""
        line, column = self._line_and_column(position)
        return f"line {line} column {column}"

    def _line_and_column(self, position: int) -> tuple[int, int]:
        newline = self._text.rfind("\n", 0, position)
        column = position - newline if newline >= 0 else self._column + position
        return self._line + self._text.count("\n", 0, position), column

    def _slide(self, characters: int) -> None:
        self._line, self._column = self._line_and_column(self.at)
        piece = self._file.read(characters)
        self._text = self._text[self.at :] + piece
        self._ended = not piece
        self.at = 0

    def _is_near_cut(self, position: int) -> bool:
        return not self._ended and position > len(self._text) - _MARGIN_CHARACTERS

    def _is_cut_off(self, error: Exception) -> bool:
        """Whether more text may mend it: the fault is where the piece ends."""
        if self._ended or not isinstance(error, JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or self._is_near_cut(error.pos)

    def _broken(self, number: int, why: str, position: int) -> DatasetFormatError:
        return DatasetFormatError(f"Row {number} is not valid JSON: {why} ({self.place(position)}).", field="file")
