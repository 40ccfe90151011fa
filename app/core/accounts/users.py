"""Accounts: add, find, change, remove."""

from __future__ import annotations

import re
import time

from sqlalchemy import func
from sqlmodel import Session, col, delete, select

from app.core.accounts.models import ApiToken, LoginSession, User
from app.core.accounts.passwords import hash_password
from app.core.accounts.roles import Role
from app.core.errors import Conflict, InvalidInput, NotFound

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


def add_user(session: Session, name: str, password: str, role: Role) -> User:
    """Raises: InvalidInput, Conflict where the name is taken."""
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidInput("A user's name has letters, digits and . _ @ + - only, 64 at most.", field="name")
    password_hash = hash_password(password)
    if find_user(session, name) is not None:
        raise Conflict(f"There is a user {name} already.", field="name")
    user = User(name=name, password_hash=password_hash, role=role, created_at=time.time())
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, name: str) -> User | None:
    """By name, in any case of letters."""
    return session.exec(select(User).where(User.name == name.strip().lower())).first()


def get_user(session: Session, name: str) -> User:
    """Raises: NotFound."""
    user = find_user(session, name)
    if user is None:
        raise NotFound(f"There is no user {name[:64]}.", advice="`loradeck users list` names them.")
    return user


def get_user_by_id(session: Session, user_id: int) -> User:
    """Raises: NotFound."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFound(f"There is no user with id {user_id}.")
    return user


def list_users(session: Session) -> list[User]:
    """All, by name."""
    return list(session.exec(select(User).order_by(col(User.name))))


def has_users(session: Session) -> bool:
    """Whether the first account was made."""
    return session.exec(select(User.id).limit(1)).first() is not None


def set_password(session: Session, user: User, password: str, *, keep: str | None = None) -> None:
    """Also ends the user's sessions, but for the one whose hash is `keep`. Raises: InvalidInput."""
    user.password_hash = hash_password(password)
    session.add(user)
    others = delete(LoginSession).where(col(LoginSession.user_id) == user.key)
    session.exec(others if keep is None else others.where(col(LoginSession.id_hash) != keep))


def set_role(session: Session, user: User, role: Role) -> None:
    """Raises: Conflict where no admin would be left."""
    if role != Role.ADMIN:
        _keep_an_admin(session, user)
    user.role = role
    session.add(user)


def remove_user(session: Session, user: User) -> None:
    """With their sessions and tokens; what they queued stays. Raises: Conflict where no admin would be left."""
    _keep_an_admin(session, user)
    session.exec(delete(LoginSession).where(col(LoginSession.user_id) == user.key))
    session.exec(delete(ApiToken).where(col(ApiToken.user_id) == user.key))
    session.delete(user)
    session.flush()


def _keep_an_admin(session: Session, user: User) -> None:
    if user.role != Role.ADMIN:
        return
    others = select(func.count()).select_from(User).where(User.role == Role.ADMIN, User.id != user.id)
    if session.exec(others).one() == 0:
        raise Conflict(f"{user.name} is the only admin.", advice="Make another user an admin first.", field="role")
