"""A file on its way in: hashed as it comes, read again where somebody wants to, gone unless it was taken."""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.core.datasets.incoming import IncomingFile


def test_it_is_hashed_as_it_comes_and_can_be_read_from_its_start(tmp_path: Path) -> None:
    incoming = IncomingFile(tmp_path)
    for piece in (b"one", b"", b"two" * 1000):
        incoming.write(piece)
    incoming.seek(0)
    assert incoming.read() == b"one" + b"two" * 1000
    assert (incoming.bytes, incoming.sha256) == (3003, hashlib.sha256(b"one" + b"two" * 1000).hexdigest())
    assert incoming.path.stat().st_mode & 0o077 == 0 or incoming.folder.stat().st_mode & 0o077 == 0
    incoming.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_taken_stays_when_it_is_closed(tmp_path: Path) -> None:
    incoming = IncomingFile(tmp_path)
    incoming.write(b"kept")
    incoming.finish()
    incoming.folder.rename(tmp_path / "taken")
    incoming.close()
    assert (tmp_path / "taken" / incoming.path.name).read_bytes() == b"kept"
