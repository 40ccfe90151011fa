"""tags and notes of jobs; indexes for the list of jobs: its count, and its order by loss"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LOSSES = {"ix_job_train_loss": "$.train_loss", "ix_job_eval_loss": "$.eval_loss"}


def upgrade() -> None:
    op.add_column("job", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("job", sa.Column("notes", sa.String(), nullable=False, server_default=""))
    op.create_index("ix_job_kind_status", "job", ["kind", "status"])
    for name, path in _LOSSES.items():
        op.create_index(name, "job", [sa.text(f"json_extract(summary, '{path}')")])


def downgrade() -> None:
    for name in ("ix_job_kind_status", *_LOSSES):
        op.drop_index(name, "job")
    op.drop_column("job", "notes")
    op.drop_column("job", "tags")
