"""`loradeck users …` and `loradeck tokens …`: on the data folder itself, whether a dashboard runs or not."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.output import AsJson, print_fields, print_json, print_table
from app.core.accounts.roles import Role, Scope
from app.core.errors import InvalidInput
from app.core.paths import DataFolder
from app.core.settings import Settings

if TYPE_CHECKING:
    from sqlmodel import Session

users = typer.Typer(help="Who may log in to the dashboard of this data folder.", no_args_is_help=True)
tokens = typer.Typer(help="API tokens of users.", no_args_is_help=True)

_USER_FIELDS = ["id", "name", "role", "created_at"]
_TOKEN_FIELDS = ["id", "user", "name", "prefix", "scope", "created_at", "used_at", "revoked_at"]


@users.command("add")
def add_user(
    name: str,
    role: Annotated[
        Role, typer.Option(help="viewer: looks; member: jobs, datasets, models; admin: all.")
    ] = Role.MEMBER,
    *,
    json: AsJson = False,
) -> None:
    """Make an account. The password is asked for, or read from the first line of standard input."""
    from app.core.accounts import users as accounts

    password = _read_password()
    with _writing() as (session, folder):
        user = accounts.add_user(session, name, password, role)
        _note(session, "add_user", user.name)
        shown = _shown(user, _USER_FIELDS)
    folder.setup_token.unlink(missing_ok=True)  # the first account is there
    print_json(shown) if json else print_fields(shown, _USER_FIELDS)


@users.command("list")
def list_users(*, json: AsJson = False) -> None:
    """All accounts."""
    from app.core.accounts import users as accounts

    with _writing() as (session, _):
        rows = [_shown(user, _USER_FIELDS) for user in accounts.list_users(session)]
    print_json(rows) if json else print_table(rows, _USER_FIELDS)


@users.command("remove")
def remove_user(name: str) -> None:
    """Remove an account with its logins and tokens; what it queued stays."""
    from app.core.accounts import users as accounts

    with _writing() as (session, _):
        user = accounts.get_user(session, name)
        accounts.remove_user(session, user)
        _note(session, "remove_user", user.name)


@users.command("password")
def set_password(name: str) -> None:
    """Set a new password, asked for or read from standard input; the user is logged out everywhere."""
    from app.core.accounts import users as accounts

    password = _read_password()
    with _writing() as (session, _):
        user = accounts.get_user(session, name)
        accounts.set_password(session, user, password)
        _note(session, "set_password", user.name)


@tokens.command("add")
def add_token(
    name: str,
    user: Annotated[str, typer.Option(help="Whose token it is.")],
    scope: Annotated[Scope, typer.Option(help="How much of the user's role it has.")] = Scope.READ,
    *,
    json: AsJson = False,
) -> None:
    """Make a token. It is printed now, and can never be read again."""
    from app.core.accounts import tokens as accounts
    from app.core.accounts.users import get_user

    with _writing() as (session, _):
        owner = get_user(session, user)
        token, secret = accounts.add_token(session, owner, name, scope)
        _note(session, "add_token", f"{owner.name}: {token.name}")
        shown = {**_shown(token, _TOKEN_FIELDS), "user": owner.name, "token": secret}
    print_json(shown) if json else print_fields(shown, ["token", *_TOKEN_FIELDS])


@tokens.command("list")
def list_tokens(*, json: AsJson = False) -> None:
    """All tokens, without their secret part."""
    from app.core.accounts import tokens as accounts

    with _writing() as (session, _):
        found = accounts.list_tokens(session)
        rows = [{**_shown(token, _TOKEN_FIELDS), "user": owner.name} for token, owner in found]
    print_json(rows) if json else print_table(rows, _TOKEN_FIELDS)


@tokens.command("revoke")
def revoke_token(token_id: Annotated[int, typer.Argument(min=1, max=2**63 - 1)]) -> None:
    """From now on it opens nothing."""
    from app.core.accounts import tokens as accounts

    with _writing() as (session, _):
        token = accounts.revoke_token(session, token_id)
        _note(session, "revoke_token", token.name)


@contextmanager
def _writing() -> Iterator[tuple[Session, DataFolder]]:
    """A write session on this data folder's database. Raises: DatabaseDamaged."""
    from app.core.damage import open_checked  # imported here: client commands need no database

    settings = Settings.load()
    folder = DataFolder(settings.home).create()
    database = open_checked(settings.effective_database_url, folder)
    try:
        with database.write() as session:
            yield session, folder
    finally:
        database.engine.dispose()


def _note(session: Session, action: str, subject: str) -> None:
    from app.core.accounts.audit import note

    note(session, "loradeck command", action, subject)


def _shown(row: Any, fields: list[str]) -> dict[str, Any]:
    values = ((field, getattr(row, field, None)) for field in fields)
    return {field: str(value) if isinstance(value, Role | Scope) else value for field, value in values}


def _read_password() -> str:
    """Raises: InvalidInput where the two that are typed differ."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidInput("The two passwords are not the same.", field="password")
    return password
