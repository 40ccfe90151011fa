"""dataset kind, source, columns and status; worker capabilities"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite adds a column with its check in place; alembic would copy the whole table for it.
    op.execute(
        "ALTER TABLE dataset ADD COLUMN status VARCHAR(16) DEFAULT 'ready' NOT NULL "
        "CONSTRAINT ck_dataset_status CHECK (status IN ('importing', 'ready', 'failed'))"
    )
    op.execute(
        "ALTER TABLE dataset ADD COLUMN kind VARCHAR(16) DEFAULT 'messages' NOT NULL "
        "CONSTRAINT ck_dataset_kind CHECK (kind IN ('messages', 'text', 'preference'))"
    )
    op.add_column("dataset", sa.Column("source", sa.JSON(none_as_null=True), server_default="{}", nullable=False))
    op.add_column("dataset", sa.Column("columns", sa.JSON(none_as_null=True), server_default="{}", nullable=False))
    op.add_column("dataset", sa.Column("error", sa.String(), nullable=True))
    op.add_column("worker_state", sa.Column("capabilities", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("worker_state", "capabilities")
    for column in ("error", "columns", "source"):
        op.drop_column("dataset", column)
    with op.batch_alter_table("dataset", recreate="always", table_kwargs={"sqlite_autoincrement": True}) as batch_op:
        for column in ("kind", "status"):
            batch_op.drop_constraint(f"ck_dataset_{column}", type_="check")
            batch_op.drop_column(column)
