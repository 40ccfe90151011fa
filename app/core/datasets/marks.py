"""Files that are something else than their name says, recognised by their first bytes, with what to do about it."""

from __future__ import annotations

from pathlib import Path

from app.core.errors import DatasetFormatError, Fault

_LOOKED_AT = 64 * 1024  # bytes
_UNPACK = "Unpack it and upload the file inside."
_AS_UTF_8 = "Save it as UTF-8: iconv -f {} -t UTF-8 FILE > NEW_FILE"
_PARQUET = b"PAR1"
# first bytes -> what such a file is, and what to do
_MARKS: tuple[tuple[bytes, str, str | None], ...] = (
    (b"\x1f\x8b", "is compressed (gzip)", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "is compressed (Zstandard)", _UNPACK),
    (b"BZh", "is compressed (bzip2)", _UNPACK),
    (b"\xfd7zXZ\0", "is compressed (xz)", _UNPACK),
    (b"7z\xbc\xaf", "is an archive (7z)", _UNPACK),
    (b"PK\x03\x04", "is a ZIP archive or an Excel workbook", "Unpack it, or export the sheet as CSV in UTF-8."),
    (b"ARROW1", "is an Arrow file", "Write it as Parquet."),
    (b"\xff\xfe\0\0", "is UTF-32 text, not UTF-8", _AS_UTF_8.format("UTF-32")),
    (b"\xff\xfe", "is UTF-16 text, not UTF-8", _AS_UTF_8.format("UTF-16")),
    (b"\xfe\xff", "is UTF-16 text, not UTF-8", _AS_UTF_8.format("UTF-16")),
)


def refuse_binary(path: Path) -> None:
    """Raises: DatasetFormatError for what cannot be JSON or CSV."""
    head = _read_head(path)
    _refuse_marked(head)
    if head.startswith(_PARQUET):
        raise _fault("The file is Parquet.", "Let its name end in .parquet.")
    if b"\0" in head:
        raise _of_nul_bytes(head)


def refuse_no_parquet(path: Path) -> None:
    """Raises: DatasetFormatError for what is not Parquet, or is encrypted."""
    head = _read_head(path)
    if head.startswith(b"PARE"):
        raise _fault("The Parquet file is encrypted.", "Write it without encryption.")
    _refuse_marked(head)
    if head and not head.startswith(_PARQUET):
        raise _fault("The file is not Parquet: it does not begin with PAR1.", None)


def utf_8_advice() -> str:
    """What to do with a text in another encoding, which its bytes do not name."""
    return _AS_UTF_8.format("LATIN1")


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT)


def _refuse_marked(head: bytes) -> None:
    for mark, what, advice in _MARKS:
        if head.startswith(mark):
            raise _fault(f"The file {what}.", advice)


def _of_nul_bytes(head: bytes) -> DatasetFormatError:
    """Text in UTF-16 without a mark has a NUL byte beside most of its letters, on one side."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 16 and max(even, odd) > len(head) // 4 and min(even, odd) * 8 < max(even, odd):
        name = "UTF-16BE" if even > odd else "UTF-16LE"
        return _fault(f"The file is {name} text, not UTF-8.", _AS_UTF_8.format(name))
    return _fault("The file is not text (it holds NUL bytes).", None)


def _fault(message: str, advice: str | None) -> DatasetFormatError:
    return DatasetFormatError([Fault("file", message, advice)])
