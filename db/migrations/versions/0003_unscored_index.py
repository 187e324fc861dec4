"""An index of what has no score, with the reasons, which are cut to what it can hold."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Cut long reasons, then make the index: of ten million verdicts within a minute or so."""
    unscored = sa.text("status <> 'ok'")
    op.execute("UPDATE verdict SET reason = substr(reason, 1, 500) WHERE status <> 'ok' AND length(reason) > 500")
    op.create_index(
        "ix_verdict_unscored",
        "verdict",
        ["model_id", "status", "reason"],
        unique=False,
        sqlite_where=unscored,
        postgresql_where=unscored,
    )
