"""Finds out on whose behalf a request comes: by its token, else by the browser's cookie."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from app.core.accounts import sessions, tokens
from app.core.accounts.identity import ANONYMOUS, BOX, INSTALLATION, Identity
from app.core.database import Database
from app.core.errors import Unauthorized

REMEMBERED_SECONDS = 5.0  # so a change made by the command is noticed soon; the web's own changes at once
_MOST_REMEMBERED = 1000

logger = logging.getLogger(__name__)


class Identities:
    """Answers from memory where it was asked a moment ago: most requests cost no query."""

    def __init__(self, database: Database, installation_token: str, *, accounts: bool) -> None:
        self._database = database
        self._token = installation_token.encode()
        self._accounts = accounts
        self._remembered: dict[str, tuple[float, Identity]] = {}
        # Browsers share cookies between the ports of a machine: two dashboards must not log each other out.
        self.cookie = f"loradeck_{hashlib.sha256(self._token).hexdigest()[:8]}"

    async def find(self, request: Request) -> Identity:
        """Raises: Unauthorized for a token that is none; OperationalError."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._of_token(token.strip())
        if not self._accounts:
            return ANONYMOUS if request.url.path.startswith("/api/") else BOX
        secret = request.cookies.get(self.cookie)
        return await self._look_up("session", secret) if secret else ANONYMOUS

    def forget(self) -> None:
        """Accounts have changed."""
        self._remembered.clear()

    async def _of_token(self, token: str) -> Identity:
        if secrets.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            return INSTALLATION
        identity = await self._look_up("token", token)
        if identity is ANONYMOUS:
            raise Unauthorized(
                "This token is not valid.",
                advice="Send `Authorization: Bearer …` with a token that was not revoked; on the server's machine one "
                "is in server.json in the data folder.",
            )
        return identity

    async def _look_up(self, kind: str, secret: str) -> Identity:
        key = sessions.digest(secret)
        until, identity = self._remembered.get(key, (0.0, ANONYMOUS))
        if time.monotonic() < until:
            return identity
        identity = await run_in_threadpool(self._read, kind, key)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        if identity is not ANONYMOUS:
            self._remembered[key] = (time.monotonic() + REMEMBERED_SECONDS, identity)
        return identity

    def _read(self, kind: str, key: str) -> Identity:
        with self._database.read() as session:
            identity, seen_at = _find_session(session, key) if kind == "session" else _find_token(session, key)
        if identity is not ANONYMOUS and time.time() - seen_at > sessions.SEEN_EVERY_SECONDS:
            self._note(kind, key)
        return identity

    def _note(self, kind: str, key: str) -> None:
        try:
            with self._database.write() as session:
                (sessions.note_seen if kind == "session" else tokens.note_used)(session, key)
        except OperationalError as error:  # busy: the next request notes it
            logger.warning("a login's last use was not noted: %s", error)


def _find_session(session: Session, key: str) -> tuple[Identity, float]:
    found = sessions.find_session(session, key)
    return (ANONYMOUS, 0.0) if found is None else (sessions.identity_of(*found), found[0].seen_at)


def _find_token(session: Session, key: str) -> tuple[Identity, float]:
    found = tokens.find_token(session, key)
    return (ANONYMOUS, 0.0) if found is None else (tokens.identity_of(*found), found[0].used_at or 0.0)


def identity_of(request: Request) -> Identity:
    """On whose behalf this request comes, as the middleware found out."""
    identity: Identity = getattr(request.state, "identity", ANONYMOUS)
    return identity
