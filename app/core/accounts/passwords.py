"""Passwords: Argon2id, a few at a time, and as slow for an unknown user as for a known one.

Source: OWASP Password Storage Cheat Sheet (19 MiB, 2 passes, 1 lane).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from app.core.errors import InvalidInput, TooManyRequests

if TYPE_CHECKING:
    from pwdlib import PasswordHash

MIN_LENGTH = 10
MAX_LENGTH = 1024  # characters; a longer one would only cost time
_AT_ONCE = 2
_WAITING = 6  # beside those at work; whoever comes then is told to come back

_working, _admitted = BoundedSemaphore(_AT_ONCE), BoundedSemaphore(_AT_ONCE + _WAITING)


def hash_password(password: str) -> str:
    """Raises: InvalidInput where it is too short or too long, TooManyRequests."""
    if len(password) < MIN_LENGTH:
        raise InvalidInput(f"A password has {MIN_LENGTH} characters at least.", field="password")
    if len(password) > MAX_LENGTH:
        raise InvalidInput(f"A password has {MAX_LENGTH:,} characters at most.", field="password")
    with _turn():
        return _hasher().hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether it is the stored one; without one (an unknown user) this takes the same time. Raises: TooManyRequests."""
    with _turn():
        nobodys = _nobodys()  # made by the first check, whomever that is of
        right = _hasher().verify(password, stored or nobodys)
    return right and stored is not None


@cache
def _hasher() -> PasswordHash:
    from pwdlib import PasswordHash  # imported here: only a login needs it
    from pwdlib.hashers.argon2 import Argon2Hasher

    return PasswordHash((Argon2Hasher(memory_cost=19 * 1024, time_cost=2, parallelism=1),))


@cache
def _nobodys() -> str:
    return _hasher().hash("nobody's password")


@contextmanager
def _turn() -> Iterator[None]:
    if not _admitted.acquire(blocking=False):
        raise TooManyRequests("Too many passwords are being checked. Try again in a few seconds.")
    try:
        with _working:
            yield
    finally:
        _admitted.release()
