"""turns of chats, prompts kept as samples, checkpoints that stay"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chat_turn",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("sides", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("sampling", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("answers", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_chat_turn_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_turn")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_chat_turn_job_id_id", "chat_turn", ["job_id", "id"])
    op.create_table(
        "sample_prompt",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_prompt")),
        sa.UniqueConstraint("text", name=op.f("uq_sample_prompt_text")),
        sqlite_autoincrement=True,
    )
    op.add_column("artifact", sa.Column("kept", sa.Boolean(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("artifact", "kept")
    op.drop_table("sample_prompt")
    op.drop_index("ix_chat_turn_job_id_id", "chat_turn")
    op.drop_table("chat_turn")
