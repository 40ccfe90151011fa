"""Files are read row by row; each fault has its row's number, whatever a file holds."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.datasets import lines, reader
from app.core.datasets.faults import RowFault
from app.core.datasets.reader import read_rows
from app.core.errors import DatasetFormatError

Read = Callable[..., list[tuple[int, object]]]

ROW = {"instruction": "Q", "output": "Ä ☃"}
LINE = json.dumps(ROW, ensure_ascii=False)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a file, and return its (number, row or fault's message)."""

    def read(content: str | bytes, suffix: str = ".jsonl") -> list[tuple[int, object]]:
        path = tmp_path / f"data{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return [(number, row.message if isinstance(row, RowFault) else row) for number, row in read_rows(path)]

    return read


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", f"{LINE}\n{LINE}\n"),
        (".jsonl", f"{LINE}\r\n{LINE}\r\n"),
        (".jsonl", f"{LINE}\n{LINE}"),
        (".jsonl", f"[{LINE}, {LINE}]"),
        (".json", f"[{LINE}, {LINE}]"),
        (".json", f" \n [\n{LINE},\r\n{LINE}]"),
        (".json", f"{LINE}\n{LINE}\n"),
        (".csv", "instruction,output\nQ,Ä ☃\nQ,Ä ☃\n"),
        (".csv", 'instruction,output\r\n"Q","Ä ☃"\r\nQ,Ä ☃'),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_each_kind_of_file(read: Read, suffix: str, content: str, mark: bytes) -> None:
    assert read(mark + content.encode(), suffix) == [(1, ROW), (2, ROW)]


def test_a_csv_field_may_hold_lines_and_commas(read: Read) -> None:
    assert read('a,b\n"one\ntwo","x,""y"""\n', ".csv") == [(1, {"a": "one\ntwo", "b": 'x,"y"'})]


def test_a_broken_line_has_its_number_and_the_rest_is_read(read: Read) -> None:
    rows = read(f'{LINE}\n\n{{"instruction": "Q", "output"\n{LINE}\n')
    assert [number for number, _ in rows] == [1, 2, 3], "rows are counted, not lines"
    assert rows[1][1] == "is not valid JSON: Expecting ':' delimiter (line 3 column 30)"
    assert rows[2][1] == ROW


DEEP = reader.MAX_DEPTH


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5", "is not a JSON object but int"),
        ("[]", "is not a JSON object but list"),
        ('"text"', "is not a JSON object but str"),
        ("null", "is not a JSON object but NoneType"),
        ('{"x": NaN}', "is not valid JSON: NaN is not a JSON value"),
        ('{"x": -Infinity}', "is not valid JSON: -Infinity is not a JSON value"),
        ('{"x": ["a\\u0000"]}', "is not text: it holds a NUL character"),
        ('{"\\u0000": 1}', "is not text: it holds a NUL character"),
        ('{"x": 1e999}', "holds a number that is too large"),
        ('{"x": ' + "9" * 5000 + "}", "is not valid JSON: Exceeds the limit"),
        ('{"x": "\\ud800"}', "holds a lone surrogate"),
        ('{"\\udfff": 1}', "holds a lone surrogate"),
        ('{"x": ' + "[" * DEEP + "]" * DEEP + "}", "is nested too deeply"),
        ('{"x": ' * (DEEP + 1) + "1" + "}" * (DEEP + 1), "is nested too deeply"),
        ('{"x": ' + "[" * 10_000 + "]" * 10_000 + "}", "is not valid JSON: it is nested too deeply"),
    ],
    ids=lambda value: value[:24],
)
@pytest.mark.parametrize("array", [False, True], ids=["line", "array"])
def test_odd_rows_are_refused_by_number(read: Read, line: str, message: str, array: bool) -> None:
    if not array:
        ((first, _), (number, fault)) = read(f"{LINE}\n{line}\n")
    elif not message.startswith("is not valid JSON"):
        ((first, _), (number, fault)) = read(f"[{LINE},\n {line}]", ".json")
    else:
        with pytest.raises(DatasetFormatError, match=rf"Row 2 {re.escape(message)}.* \(line 2 column 2\)"):
            read(f"[{LINE},\n {line}]", ".json")
        return
    assert (first, number) == (1, 2)
    assert str(fault).startswith(message)


def test_a_backslash_before_u0000_is_no_nul_character(read: Read) -> None:
    assert read(r'{"x": "\\u0000"}') == [(1, {"x": r"\u0000"})]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", "\n\n".join(f'{{"n": {n}}}' for n in range(1, 6))),
        (".json", "[" + ", ".join(f'{{"n": {n}}}' for n in range(1, 6)) + "]"),
        (".csv", "n\n" + "\n\n".join(map(str, range(1, 6)))),
    ],
)
def test_rows_that_are_skipped_keep_the_others_numbers(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_text(content)
    rows = list(read_rows(path, skip=3))
    assert [number for number, _ in rows] == [4, 5]
    assert [str(row["n"]) for _, row in rows if isinstance(row, dict)] == ["4", "5"]


def test_lines_that_are_skipped_are_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("oops\n" * 3 + LINE)
    assert list(read_rows(path, skip=3)) == [(4, ROW)]


def test_what_is_nested_a_little_is_read(read: Read) -> None:
    nested = '{"x": ' + "[" * (DEEP - 2) + "1" + "]" * (DEEP - 2) + "}"
    ((_, row),) = read(nested)
    assert json.dumps(row) == nested


def test_a_broken_array_says_where(read: Read) -> None:
    with pytest.raises(
        DatasetFormatError, match=r"file: Row 2 is not valid JSON: Expecting property name .* \(line 2 column 2\)"
    ):
        read(f"[{LINE},\n{{oops}}]", ".json")


@pytest.mark.parametrize("content", ["", "\n\r\n", "\ufeff"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_an_empty_file_has_no_rows(read: Read, content: str, suffix: str) -> None:
    assert read(content, suffix) == []


def test_a_csv_row_with_other_columns_than_the_header_is_refused(read: Read) -> None:
    rows = read("instruction,output\nQ,A\nQ\nQ,A,more\n", ".csv")
    assert rows[0] == (1, {"instruction": "Q", "output": "A"})
    assert rows[1:] == [(n, f"does not have the header's 2 columns (line {n + 1})") for n in (2, 3)]


def test_broken_csv_says_which_row(read: Read) -> None:
    with pytest.raises(DatasetFormatError, match="file: Row 2 is not valid CSV: unexpected end of data"):
        read('a,b\n1,2\n"open,3\n', ".csv")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_what_is_not_text_is_refused(read: Read, suffix: str) -> None:
    for content in (b"\x89PNG\r\n\0", bytes(range(256)), b"\0\1"):
        with pytest.raises(DatasetFormatError, match="is not text"):
            read(content, suffix)


GREETING = '{"text": "Grüße an alle"}'


@pytest.mark.parametrize(
    ("content", "message", "advice"),
    [
        (gzip.compress(b"x" * 10**6), "The file is compressed (gzip).", "Unpack it"),
        (b"\x28\xb5\x2f\xfd" + b"x", "The file is compressed (Zstandard).", "Unpack it"),
        (bz2.compress(b"x"), "The file is compressed (bzip2).", "Unpack it"),
        (lzma.compress(b"x"), "The file is compressed (xz).", "Unpack it"),
        (b"PK\x03\x04\0\0", "The file is a ZIP archive or an Excel workbook.", "export the sheet as CSV"),
        (b"PAR1\x15\0", "The file is Parquet.", "Let its name end in .parquet."),
        (GREETING.encode("utf-16"), "The file is UTF-16 text, not UTF-8.", "iconv -f UTF-16 -t UTF-8"),
        (GREETING.encode("utf-32"), "The file is UTF-32 text, not UTF-8.", "iconv -f UTF-32 -t UTF-8"),
        (GREETING.encode("utf-16-le"), "The file is UTF-16LE text, not UTF-8.", "iconv -f UTF-16LE -t UTF-8"),
        (GREETING.encode("utf-16-be"), "The file is UTF-16BE text, not UTF-8.", "iconv -f UTF-16BE -t UTF-8"),
        (GREETING.encode("latin-1"), "The file is not UTF-8 text (line 1).", "iconv -f LATIN1 -t UTF-8"),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_what_is_something_else_is_named_with_what_to_do(
    read: Read, suffix: str, content: bytes, message: str, advice: str
) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        read(content, suffix)
    (fault,) = caught.value.faults
    assert (fault.field, fault.message) == ("file", message)
    assert advice in str(fault.advice)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt;completion\nQ;A\n", "The header's columns are separated by semicolons: 'prompt;completion'."),
        ("prompt\tcompletion\nQ\tA\n", "The header's columns are separated by tabs: 'prompt\\tcompletion'."),
        ("prompt,prompt\nQ,A\n", "The header names the column 'prompt' more than once."),
    ],
)
def test_a_header_that_cannot_be_used_is_said(read: Read, content: str, message: str) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        read(content, ".csv")
    assert caught.value.faults[0].message == message
    assert caught.value.faults[0].advice


def test_a_header_that_is_repeated_below_is_no_row(read: Read) -> None:
    """As where files were put behind each other."""
    rows = read("a,b\n1,2\na,b\n3,4\n", ".csv")
    assert rows == [(1, {"a": "1", "b": "2"}), (2, "is the header once more (line 3); remove that line"),
                    (3, {"a": "3", "b": "4"})]  # fmt: skip


def test_a_row_that_takes_too_much_memory_has_its_number(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    class Decoder(json.JSONDecoder):
        def decode(self, line: str) -> object:  # type: ignore[override]
            if "huge" in line:
                raise MemoryError
            return super().decode(line)

    monkeypatch.setattr(reader, "_DECODER", Decoder())
    assert read(f'{LINE}\n{{"huge": []}}\n{LINE}\n')[1] == (
        2, "holds more than fits into the memory that may be taken (line 2)"
    )  # fmt: skip


def test_a_late_nul_in_a_csv_row_has_its_number(read: Read) -> None:
    rows = read(b"a,b\n" + b"x,y\n" * 20_000 + b"x,\0\n", ".csv")
    assert rows[-1] == (20_001, "is not text: it holds a NUL character")


@pytest.mark.parametrize("lines_before", [0, 1, 20_000])
def test_what_is_not_utf_8_has_its_line(read: Read, lines_before: int) -> None:
    good = f"{LINE}\n".encode() * lines_before
    with pytest.raises(DatasetFormatError, match=rf"not UTF-8 text \(line {lines_before + 1}\)"):
        read(good + "{'x': 'Ä'}\n".encode("latin-1") + f"{LINE}\n".encode())


def test_a_file_that_ends_within_a_character_has_its_line(read: Read) -> None:
    with pytest.raises(DatasetFormatError, match=r"not UTF-8 text \(line 2\)"):
        read(f"{LINE}\n".encode() + "Ä".encode()[:1])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_that_is_too_long_is_refused_before_it_is_read(
    read: Read, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_ROW_CHARACTERS", 1000)
    with pytest.raises(DatasetFormatError, match="Line 2 is longer than 1,000 characters"):
        read("a\n" + "x" * 5000 + "\na\n", suffix)


@pytest.mark.parametrize("suffix", ["", ".txt", ".arrow"])
def test_other_kinds_of_file_are_refused(read: Read, suffix: str) -> None:
    with pytest.raises(DatasetFormatError, match=r"is not one of \.json, \.jsonl, \.csv"):
        read("x", suffix)


def test_no_other_file_is_read(read: Read, tmp_path: Path) -> None:
    """Paths and scripts in a data file are text; a loading script beside it is no loader."""
    canary = tmp_path / "data.py"
    canary.write_text("raise AssertionError('it was run')")
    row = {"data_files": str(canary), "path": "file:///etc/passwd", "output": "A"}
    assert read(json.dumps(row)) == [(1, row)]
