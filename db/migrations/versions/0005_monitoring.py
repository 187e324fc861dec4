"""Indexes for `db metrics`: jobs by when they were finished, and those that are open."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make both."""
    is_open = sa.text("status IN ('queued', 'running', 'failed')")
    op.create_index("ix_job_finished", "job", ["finished_at"], unique=False)
    op.create_index(
        "ix_job_open",
        "job",
        ["scan_id", "status", "queued_at", "images", "losses"],
        unique=False,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
