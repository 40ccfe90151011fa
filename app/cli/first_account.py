"""What `loradeck serve` does about accounts: the link for the first one, and no open door without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.errors import InvalidInput
from app.core.paths import DataFolder
from app.core.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def refuse_open_bind(settings: Settings) -> None:
    """Raises: InvalidInput where an address beyond loopback would be reached by whoever is on the network."""
    if settings.host in _LOOPBACK or settings.open_bind:
        return
    if settings.auth == "off":
        raise InvalidInput(
            f"{settings.host} would open the dashboard to the network, and accounts are off: whoever reaches it could "
            "do everything. Set LORADECK_AUTH=accounts; or, on a network where you trust everybody, "
            "LORADECK_OPEN_BIND=true as well.",
            field="host",
        )
    if not _has_users(settings):
        raise InvalidInput(
            f"{settings.host} would open the dashboard to the network, and nobody has an account yet. Make the first "
            "one: loradeck users add NAME --role admin",
            field="host",
        )


def setup_link(web: FastAPI, url: str) -> str | None:
    """The one-time link, where accounts are on and there is none yet."""
    from app.core.accounts.setup import get_setup_token  # client commands need no database
    from app.core.accounts.users import has_users

    state = web.state
    if state.settings.auth == "off" or state.database.damage is not None:
        return None
    with state.database.read() as session:
        if has_users(session):
            return None
    return f"{url}/setup?token={get_setup_token(state.folder)}"


def _has_users(settings: Settings) -> bool:
    from app.core.accounts.users import has_users
    from app.core.damage import open_checked

    folder = DataFolder(settings.home).create()
    database = open_checked(settings.effective_database_url, folder)
    try:
        with database.read() as session:
            return has_users(session)
    finally:
        database.engine.dispose()
