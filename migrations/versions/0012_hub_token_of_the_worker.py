"""whether the worker's own environment has a token of the hub: uploads without any are refused when asked for"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker_state", sa.Column("hub_token", sa.Boolean(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("worker_state", "hub_token")
