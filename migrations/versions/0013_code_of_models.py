"""code that comes with models: which need it, and who has allowed which"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("base_model", sa.Column("needs_code", sa.Boolean(), nullable=False, server_default="0"))
    op.create_table(
        "code_consent",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_model_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("files", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("revision", sa.String(), nullable=True),
        sa.Column("given_by", sa.String(), nullable=False),
        sa.Column("given_at", sa.Float(), nullable=False),
        sa.Column("withdrawn_by", sa.String(), nullable=True),
        sa.Column("withdrawn_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["base_model_id"], ["base_model.id"], name=op.f("fk_code_consent_base_model_id_base_model")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_code_consent")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_code_consent_base_model_id"), "code_consent", ["base_model_id"])


def downgrade() -> None:
    op.drop_index("ix_code_consent_base_model_id", "code_consent")
    op.drop_table("code_consent")
    op.drop_column("base_model", "needs_code")
