"""Logins. The browser's cookie holds a random id, the table only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable

from sqlmodel import Session, col, delete, select

from app.core.accounts.identity import Identity, Kind
from app.core.accounts.models import ApiToken, LoginSession, User

LASTS_SECONDS = 30 * 86400.0
IDLE_SECONDS = 7 * 86400.0
SEEN_EVERY_SECONDS = 60.0  # how exact `seen_at` is


def digest(secret: str) -> str:
    """What the tables hold of a session's id or a token: enough, since it is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def start_session(session: Session, user: User, user_agent: str, address: str) -> str:
    """Returns the id for the cookie, which is new each time."""
    now, secret = time.time(), secrets.token_urlsafe(32)
    session.exec(delete(LoginSession).where(col(LoginSession.expires_at) < now))
    session.add(
        LoginSession(
            id_hash=digest(secret),
            user_id=user.key,
            created_at=now,
            seen_at=now,
            expires_at=now + LASTS_SECONDS,
            user_agent=user_agent[:200],
            address=address,
        )
    )
    return secret


def find_session(session: Session, id_hash: str) -> tuple[LoginSession, User] | None:
    """One that is still good, with its user."""
    now = time.time()
    found = session.exec(
        select(LoginSession, User)
        .join(User, col(User.id) == col(LoginSession.user_id))
        .where(LoginSession.id_hash == id_hash, col(LoginSession.expires_at) > now)
        .where(col(LoginSession.seen_at) > now - IDLE_SECONDS)
    ).first()
    return None if found is None else (found[0], found[1])


def identity_of(login: LoginSession, user: User) -> Identity:
    """Whoever sits at that browser."""
    return Identity(Kind.SESSION, user.role, user.name, user.key, login.id_hash)


def note_seen(session: Session, id_hash: str) -> None:
    """The browser was here."""
    login = session.get(LoginSession, id_hash)
    if login is not None:
        login.seen_at = time.time()


def list_sessions(session: Session, user_id: int) -> list[LoginSession]:
    """A user's, the latest seen first."""
    chosen = select(LoginSession).where(LoginSession.user_id == user_id, col(LoginSession.expires_at) > time.time())
    return list(session.exec(chosen.order_by(col(LoginSession.seen_at).desc())))


def end_session(session: Session, id_hash: str) -> None:
    """Log one browser out."""
    session.exec(delete(LoginSession).where(col(LoginSession.id_hash) == id_hash))


def end_sessions(session: Session, user_id: int) -> None:
    """Log a user out everywhere."""
    session.exec(delete(LoginSession).where(col(LoginSession.user_id) == user_id))


def find_ended(session: Session, credentials: Iterable[str]) -> set[str]:
    """Those of the sessions and tokens, by their hashes, that are good no more."""
    asked = set(credentials)
    logins = select(LoginSession.id_hash).where(
        col(LoginSession.id_hash).in_(asked), col(LoginSession.expires_at) > time.time()
    )
    tokens = select(ApiToken.token_hash).where(col(ApiToken.token_hash).in_(asked), col(ApiToken.revoked_at).is_(None))
    good = [*session.exec(logins).all(), *session.exec(tokens).all()]
    return asked - set(good)
