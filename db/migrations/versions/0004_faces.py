"""Faces that were found in images, and how many images of a job have none."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a table and a column."""
    op.create_table(
        "face",
        sa.Column("image_id", sa.LargeBinary(length=16), nullable=False, comment="that it is in"),
        sa.Column("model_id", sa.String(length=32), nullable=False, comment="that scored it; its name ends in .faces"),
        sa.Column(
            "number",
            sa.SmallInteger(),
            autoincrement=False,
            nullable=False,
            comment="in the image, from 1, the largest",
        ),
        sa.Column(
            "x", sa.Integer(), nullable=False, comment="left edge of its box, in pixels of the image as it is shown"
        ),
        sa.Column("y", sa.Integer(), nullable=False, comment="upper edge"),
        sa.Column("width", sa.Integer(), nullable=False, comment="pixels"),
        sa.Column("height", sa.Integer(), nullable=False, comment="pixels"),
        sa.Column("confidence", sa.Double(), nullable=False, comment="of the detector, in [0, 1]"),
        sa.Column("p_real", sa.Double(), nullable=False, comment="the network's output; the lowest is the verdict's"),
        sa.ForeignKeyConstraint(["image_id", "model_id"], ["verdict.image_id", "verdict.model_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id", "model_id", "number"),
    )
    op.add_column(
        "job",
        sa.Column(
            "n_no_face", sa.Integer(), nullable=False, server_default="0", comment="of its images, those no_face"
        ),
    )
