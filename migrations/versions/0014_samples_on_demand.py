"""samples on demand"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("sample_now_requested", sa.Boolean(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("job", "sample_now_requested")
