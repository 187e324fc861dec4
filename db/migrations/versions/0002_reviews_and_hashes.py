"""Reviews by people, hashes of pictures, and thresholds that were chosen here rather than by the artifact."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add a table and four columns; rows that are there have nothing in them."""
    op.create_table(
        "review",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column(
            "label",
            sa.String(length=16),
            nullable=False,
            comment="real, generated or unclear; an image's newest row counts",
        ),
        sa.Column("note", sa.Text(), nullable=False, comment="of the reviewer; empty if none"),
        sa.Column("reviewer", sa.String(length=64), nullable=False, comment="who looked at it"),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_review_image", "review", ["image_id"], unique=False)
    op.add_column(
        "image",
        sa.Column(
            "phash", sa.BigInteger(), comment="64-bit difference hash of the picture, to find near-duplicates by"
        ),
    )
    op.add_column(
        "model",
        sa.Column(
            "thresholds_set_at",
            sa.DateTime(timezone=True),
            comment="when `db threshold` chose them; null: they are the artifact's",
        ),
    )
    op.add_column(
        "model",
        sa.Column(
            "operating_points", sa.Text(), comment="JSON: the generated_below that keeps each false-positive rate"
        ),
    )
    op.add_column(
        "job",
        sa.Column(
            "pruned",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="of its images, those whose verdict is pruned",
        ),
    )
