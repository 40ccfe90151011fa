"""Alembic's environment. The application passes its own connection; `make migration` opens one by the settings."""

from __future__ import annotations

from alembic import context

import app.core.tables  # noqa: F401 - fills the metadata
from app.core.database import Database
from app.core.settings import Settings
from app.core.table import Table


def run_migrations() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    with Database(Settings().effective_database_url).engine.connect() as own:
        _migrate(own)


def _migrate(connection) -> None:  # type: ignore[no-untyped-def]
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
