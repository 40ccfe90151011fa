"""kinds of jobs: export, and adapter (one that was trained elsewhere is taken in)"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_BEFORE = "'train', 'merge', 'import', 'playground', 'check', 'preview'"
_NEW = "'export', 'adapter'"
_WITH_JOBS = ("chat_turn", "attempt", "artifact", "metric", "memory_reading", "event")


def upgrade() -> None:
    _replace_in_job(f"({_BEFORE})", f"({_BEFORE}, {_NEW})")


def downgrade() -> None:
    made_from = f"SELECT id FROM job WHERE kind IN ({_NEW})"
    gone = f"SELECT id FROM job WHERE kind IN ({_NEW}) OR source_job_id IN ({made_from})"
    for table in _WITH_JOBS:
        op.execute(f"DELETE FROM {table} WHERE job_id IN ({gone})")
    op.execute(f"DELETE FROM job WHERE source_job_id IN ({made_from})")
    op.execute(f"DELETE FROM job WHERE kind IN ({_NEW})")
    _replace_in_job(f"({_BEFORE}, {_NEW})", f"({_BEFORE})")


def _replace_in_job(old: str, new: str) -> None:
    """Change the table's check in the stored schema, where no row has to move; migration 0003 says why."""
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    edit = "UPDATE sqlite_master SET sql = replace(sql, :old, :new) WHERE type = 'table' AND name = 'job'"
    connection.execute(sa.text(edit), {"old": old, "new": new})
    connection.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema=OFF")
