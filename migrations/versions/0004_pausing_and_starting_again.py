"""pausing jobs and the queue, saving now, starting a job again; rolling readings up and pruning events"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OF_JOB = (
    ("paused", sa.Boolean(), "0"),
    ("pause_reason", sa.JSON(none_as_null=True), None),
    ("save_now_requested", sa.Boolean(), "0"),
    ("start_from", sa.Integer(), None),
    ("forgiven_attempts", sa.Integer(), "0"),
    ("inputs", sa.JSON(none_as_null=True), None),
    ("held_up", sa.JSON(none_as_null=True), None),
)


def upgrade() -> None:
    for name, kind, default in _OF_JOB:
        op.add_column("job", sa.Column(name, kind, server_default=default, nullable=default is None))
    op.create_table(
        "queue_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("pause_reason", sa.JSON(none_as_null=True), nullable=True),
        sa.Column(
            "on_failure",
            sa.Enum("continue", "pause", name="on_failure", native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queue_state")),
    )
    op.add_column("memory_reading", sa.Column("seconds", sa.Integer(), server_default="1", nullable=False))
    op.drop_index("ix_memory_reading_time", "memory_reading")
    op.create_index("ix_memory_reading_seconds_time", "memory_reading", ["seconds", "time"])
    op.create_index("ix_event_gpu_time", "event", ["time"], sqlite_where=sa.text("kind = 'gpu'"))
    op.create_index("ix_job_finished_at", "job", ["finished_at"])


def downgrade() -> None:
    op.drop_index("ix_job_finished_at", "job")
    op.drop_index("ix_event_gpu_time", "event")
    op.drop_index("ix_memory_reading_seconds_time", "memory_reading")
    op.create_index("ix_memory_reading_time", "memory_reading", ["time"])
    op.drop_column("memory_reading", "seconds")
    op.drop_table("queue_state")
    for name, _, _ in reversed(_OF_JOB):
        op.drop_column("job", name)
