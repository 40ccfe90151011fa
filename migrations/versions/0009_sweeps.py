"""a job knows the sweep that it is part of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("sweep_id", sa.Integer(), nullable=True))
    op.create_index(op.f("ix_job_sweep_id"), "job", ["sweep_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_job_sweep_id"), table_name="job")
    op.drop_column("job", "sweep_id")
