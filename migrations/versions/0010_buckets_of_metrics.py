"""buckets of metric points: least, most, mean and last of 8, 64, 512, … steps"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_LEVELS = 6
_OF_POINTS = (
    "count(value) AS points, count(*) - count(value) AS missing, total(value) AS total, "
    "min(value) AS low, max(value) AS high FROM metric"
)
_OF_BUCKETS = (
    "sum(points) AS points, sum(missing) AS missing, total(total) AS total, min(low) AS low, max(high) AS high "
    "FROM metric_bucket WHERE level = :level - 1"
)
_FOLD = """
    INSERT INTO metric_bucket (job_id, name, level, bucket, step, time, last, points, missing, total, low, high)
    SELECT folded.job_id, folded.name, :level, folded.bucket, newest.step, newest.time, newest.value,
           folded.points, folded.missing, folded.total, folded.low, folded.high
    FROM (SELECT job_id, name, step >> (:level * 3) AS bucket, max(step) AS step, {counted}
          GROUP BY job_id, name, step >> (:level * 3)) AS folded
    JOIN metric AS newest ON newest.job_id = folded.job_id AND newest.name = folded.name AND newest.step = folded.step
"""
# A series' newest bucket is not full yet.
_DROP_UNFINISHED = """
    DELETE FROM metric_bucket WHERE (job_id, name, level, bucket) IN
        (SELECT job_id, name, level, max(bucket) FROM metric_bucket GROUP BY job_id, name, level)
"""


def upgrade() -> None:
    op.create_table(
        "metric_bucket",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("last", sa.Float(), nullable=True),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("total", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_metric_bucket_job_id_job")),
        sa.PrimaryKeyConstraint("job_id", "name", "level", "bucket", name=op.f("pk_metric_bucket")),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    for level in range(1, _LEVELS + 1):
        statement = _FOLD.format(counted=_OF_POINTS if level == 1 else _OF_BUCKETS)
        connection.execute(sa.text(statement), {"level": level})
    connection.execute(sa.text(_DROP_UNFINISHED))


def downgrade() -> None:
    op.drop_table("metric_bucket")
