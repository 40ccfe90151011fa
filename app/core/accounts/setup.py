"""The first account: made with a one-time token that stands in a file only this box's owner can read."""

from __future__ import annotations

import secrets

from sqlmodel import Session

from app.core.accounts.models import User
from app.core.accounts.roles import Role
from app.core.accounts.users import add_user, has_users
from app.core.database import Database
from app.core.errors import Forbidden, NotFound
from app.core.paths import DataFolder, write_private


def get_setup_token(folder: DataFolder) -> str:
    """The token, made where there is none yet. Call only while there is no user."""
    if not folder.setup_token.exists():
        write_private(folder.setup_token, secrets.token_urlsafe(32))
    return folder.setup_token.read_text(encoding="utf-8").strip()


def check_setup_token(folder: DataFolder, given: str) -> None:
    """Raises: Forbidden unless it is this installation's."""
    path = folder.setup_token
    stored = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not stored or not secrets.compare_digest(stored.encode(), given.encode("utf-8", "surrogatepass")):
        raise Forbidden(
            "The first account is made with a one-time link.",
            advice="`loradeck serve` prints it when it starts. On the machine itself, `loradeck users add NAME "
            "--role admin` does the same.",
        )


def set_up_admin(database: Database, folder: DataFolder, token: str, name: str, password: str) -> User:
    """The first account. Of many requests at once one makes it; it is there before the token goes.

    Raises: NotFound where there is a user already, Forbidden, InvalidInput, TooManyRequests.
    """
    with database.read() as session:
        _refuse_second(session)
    check_setup_token(folder, token)
    with database.write() as session:
        _refuse_second(session)
        user = add_user(session, name, password, Role.ADMIN)
    folder.setup_token.unlink(missing_ok=True)
    return user


def _refuse_second(session: Session) -> None:
    if has_users(session):
        raise NotFound("There is nothing at this address.")
