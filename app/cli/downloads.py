"""Download an artifact: goes on where it broke off, within one command and from one command to the next, and verified.

What has come lies in FILE.part, beside the ETag that it is of, until it is whole.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

import httpx

from app.cli.client import Client, NotRunning, RequestFailed
from app.core.errors import AppError, InvalidInput

PATIENCE_SECONDS = 120.0  # without a byte, once the dashboard has answered
_PAUSE_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20
_PASSING = frozenset({502, 503, 504})


class Broken(AppError):
    """The download broke off."""

    code: ClassVar[str] = "download_broken"


class Damaged(AppError):
    """What was downloaded is not what the dashboard has listed."""

    code: ClassVar[str] = "download_damaged"


@dataclass(slots=True)
class Download:
    """One answer of the API on its way to a file."""

    path: str
    params: Mapping[str, Any]
    output: Path
    _length: int | None = None  # of the whole, once the dashboard has told

    def run(self) -> None:
        """Fetch until all has come; it lies in `partial` then. Raises: Broken, after which it can go on; AppError."""
        heard_at: float | None = None
        while True:
            before = self._have
            try:
                self._go_on()
                return
            except (NotRunning, RequestFailed) as error:
                if isinstance(error, RequestFailed) and error.status not in _PASSING:
                    raise
                heard_at = time.monotonic() if self._have > before else heard_at
                if heard_at is None:
                    raise
                if time.monotonic() - heard_at > PATIENCE_SECONDS:
                    raise self._describe(error) from error
                time.sleep(_PAUSE_SECONDS)
            except OSError as error:  # here, not there: the disk is full
                raise self._describe(error) from error

    @property
    def partial(self) -> Path:
        """Where what has come lies."""
        return self.output.with_name(f"{self.output.name}.part")

    @property
    def _note(self) -> Path:
        return self.output.with_name(f"{self.output.name}.part.etag")

    @property
    def _have(self) -> int:
        return self.partial.stat().st_size if self._note.is_file() and self.partial.is_file() else 0

    def publish(self) -> None:
        """What has come takes its name."""
        self.partial.replace(self.output)
        self._note.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove what has come: it is of no use."""
        self.partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _go_on(self) -> None:
        """One request, from where the last one ended. Raises: NotRunning where the answer breaks off."""
        have = self._have
        etag = self._note.read_text(encoding="ascii") if have else None
        headers = {"Range": f"bytes={have}-", "If-Range": etag} if etag else {}
        with Client().stream(self.path, headers, passing=(416,), **self.params) as response:
            if response.status_code == 416:  # nothing is left to send
                self._length = have
                return
            resumed = response.status_code == 206
            self._length = int(response.headers["content-length"]) + (have if resumed else 0)
            if not resumed:
                self._begin(response.headers["etag"])
            with self.partial.open("ab") as file:
                _save(response, file)

    def _begin(self, etag: str) -> None:
        """From the first byte on: what may lie there is of other bytes."""
        self._note.unlink(missing_ok=True)
        self.partial.write_bytes(b"")
        self._note.write_text(etag, encoding="ascii")

    def _describe(self, error: AppError | OSError) -> Broken:
        return Broken(
            f"The download broke off after {self._have:,} of {self._length or 0:,} bytes: {error}",
            advice=f"What has come is kept in {self.partial}. Run the same command again: it goes on from there.",
        )


def _save(response: httpx.Response, file: IO[bytes]) -> None:
    try:
        for chunk in response.iter_bytes():
            file.write(chunk)
    finally:
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def downloading(path: str, params: Mapping[str, Any], output: Path) -> Iterator[Path]:
    """Yield the file once all of it has come, to be looked at; it takes its name if the block finds no fault.

    Raises: Broken, Damaged; InvalidInput on `output`.
    """
    if not output.resolve().parent.is_dir():
        raise InvalidInput(f"The folder of {output} does not exist.", field="output")
    if output.is_dir():
        raise InvalidInput(f"{output} is a folder; name the file to write.", field="output")
    download = Download(path, params, output)
    download.run()
    try:
        yield download.partial
    except Damaged:
        download.forget()
        raise
    download.publish()


def check_zip(file: Path, listed: list[dict[str, Any]]) -> None:
    """Every file that is listed as {path, bytes, sha256} is in the zip, as it is listed. Raises: Damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {name.partition("/")[2]: name for name in archive.namelist()}
            for each in listed:
                with archive.open(members[each["path"]]) as member:
                    _require(_sha256(member) == each["sha256"], each["path"])
    except (zipfile.BadZipFile, KeyError) as error:
        raise Damaged(f"The zip is damaged: {error}", advice="Download it again.") from error


def check_file(file: Path, listed: Mapping[str, Any]) -> None:
    """The file is as it is listed. Raises: Damaged."""
    with file.open("rb") as opened:
        _require(_sha256(opened) == listed["sha256"], listed["path"])


def _require(same: bool, path: str) -> None:
    if not same:
        raise Damaged(
            f"{path} is not as the dashboard lists it: its SHA-256 differs.",
            advice="Download it again; if it differs again, it has changed there: loradeck doctor --hashes.",
        )


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
