"""kinds of jobs: check and preview"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BEFORE = "'train', 'merge', 'import', 'playground'"
_NEW = "'check', 'preview'"
_WITH_JOBS = ("attempt", "artifact", "metric", "memory_reading", "event")


def upgrade() -> None:
    _replace_in_job(f"({_BEFORE})", f"({_BEFORE}, {_NEW})")


def downgrade() -> None:
    for table in _WITH_JOBS:
        op.execute(f"DELETE FROM {table} WHERE job_id IN (SELECT id FROM job WHERE kind IN ({_NEW}))")
    op.execute(f"DELETE FROM job WHERE kind IN ({_NEW})")
    _replace_in_job(f"({_BEFORE}, {_NEW})", f"({_BEFORE})")


def _replace_in_job(old: str, new: str) -> None:
    """Change the table's check in the stored schema, where no row has to move.

    A copy of the table under its name, as alembic would make it, fails on the foreign keys that point at it: they can
    only be switched off outside a transaction. Source: https://sqlite.org/lang_altertable.html, section 8.
    """
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    edit = "UPDATE sqlite_master SET sql = replace(sql, :old, :new) WHERE type = 'table' AND name = 'job'"
    connection.execute(sa.text(edit), {"old": old, "new": new})
    connection.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema=OFF")
