"""API tokens of users: `ldk_<8 characters>_<secret>`, shown once, kept as SHA-256."""

from __future__ import annotations

import secrets
import time

from sqlmodel import Session, col, select

from app.core.accounts.identity import Identity, Kind
from app.core.accounts.models import ApiToken, User
from app.core.accounts.roles import Scope
from app.core.accounts.sessions import digest
from app.core.errors import InvalidInput, NotFound

_MAX_NAME = 60


def add_token(session: Session, user: User, name: str, scope: Scope) -> tuple[ApiToken, str]:
    """Returns its row, and the token itself, which nobody can read again. Raises: InvalidInput."""
    name = name.strip()
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise InvalidInput(
            f"A token has a name of 1 to {_MAX_NAME} characters, so that you know it again.", field="name"
        )
    prefix = f"ldk_{secrets.token_hex(4)}"
    secret = f"{prefix}_{secrets.token_urlsafe(32)}"
    token = ApiToken(
        user_id=user.key, name=name, prefix=prefix, token_hash=digest(secret), scope=scope, created_at=time.time()
    )
    session.add(token)
    session.flush()
    return token, secret


def find_token(session: Session, token_hash: str) -> tuple[ApiToken, User] | None:
    """One that was not revoked, with its user."""
    chosen = select(ApiToken, User).join(User, col(User.id) == col(ApiToken.user_id))
    found = session.exec(chosen.where(ApiToken.token_hash == token_hash, col(ApiToken.revoked_at).is_(None))).first()
    return None if found is None else (found[0], found[1])


def identity_of(token: ApiToken, user: User) -> Identity:
    """Its user, with no more than the token's scope."""
    name = f"{user.name} (token {token.name})"
    return Identity(Kind.TOKEN, token.scope.limit(user.role), name, user.key, token.token_hash)


def note_used(session: Session, token_hash: str) -> None:
    """It was used just now."""
    token = session.exec(select(ApiToken).where(ApiToken.token_hash == token_hash)).first()
    if token is not None:
        token.used_at = time.time()


def list_tokens(session: Session, user_id: int | None = None) -> list[tuple[ApiToken, User]]:
    """A user's, or everybody's, the newest first; those that were revoked too."""
    chosen = select(ApiToken, User).join(User, col(User.id) == col(ApiToken.user_id)).order_by(col(ApiToken.id).desc())
    if user_id is not None:
        chosen = chosen.where(ApiToken.user_id == user_id)
    return [(token, user) for token, user in session.exec(chosen)]


def revoke_token(session: Session, token_id: int, user_id: int | None = None) -> ApiToken:
    """For good. Raises: NotFound, also where it belongs to another than the user."""
    token = session.get(ApiToken, token_id)
    if token is None or user_id not in (None, token.user_id):
        raise NotFound(f"There is no token with id {token_id}.")
    token.revoked_at = token.revoked_at or time.time()
    session.add(token)
    return token
