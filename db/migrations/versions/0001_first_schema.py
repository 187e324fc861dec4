"""First schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "image",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False, comment="first 16 bytes of the SHA-256 of the URI"),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), comment="pixels"),
        sa.Column("height", sa.Integer(), comment="pixels"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_image_uri", "image", ["uri"], unique=False, postgresql_ops={"uri": "text_pattern_ops"})
    op.create_table(
        "model",
        sa.Column(
            "id", sa.String(length=32), nullable=False, comment="digest of its name and whatever decides a score"
        ),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False, comment="of the weights"),
        sa.Column("architecture", sa.String(length=64), nullable=False),
        sa.Column("preprocess", sa.String(length=32), nullable=False),
        sa.Column("trained", sa.Boolean(), nullable=False, comment="false: random weights, scores mean nothing"),
        sa.Column("real_above", sa.Double(), nullable=False, comment="p_real above this is labelled real"),
        sa.Column(
            "generated_below", sa.Double(), nullable=False, comment="p_real at or below this is labelled generated"
        ),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_model_name", "model", ["name"], unique=False)
    op.create_table(
        "scan",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sources", sa.Text(), nullable=False, comment="JSON list of what was scanned"),
        sa.Column("model_name", sa.String(length=64), nullable=False, comment="artifact asked for"),
        sa.Column(
            "model_id", sa.String(length=32), comment="the model whose verdicts were skipped; null if none was known"
        ),
        sa.Column("status", sa.String(length=16), nullable=False, comment="listing, listed, interrupted or cancelled"),
        sa.Column("listed", sa.BigInteger(), nullable=False, comment="images found, so far"),
        sa.Column(
            "skipped",
            sa.BigInteger(),
            nullable=False,
            comment="of these, not sent: a verdict was there, or listed twice",
        ),
        sa.Column(
            "ignored",
            sa.BigInteger(),
            nullable=False,
            comment="files passed over because of their names; not in listed",
        ),
        sa.Column("unlistable", sa.Integer(), nullable=False, comment="folders that could not be listed"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "touched_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="sign of life of the producer while it is listing",
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), comment="end of the listing"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=32), nullable=False, comment="also the Celery task's id"),
        sa.Column("scan_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False, comment="queued, running, done, failed or cancelled"),
        sa.Column("images", sa.Integer(), nullable=False, comment="how many it has"),
        sa.Column("n_ok", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_unreadable", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_truncated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_too_large", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_not_found", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_unsupported", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_crashed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("deliveries", sa.Integer(), server_default="0", nullable=False, comment="times a worker began it"),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False, comment="times the worker died in it"),
        sa.Column("suspect", sa.Integer(), comment="position of the image that was being decoded, in a careful run"),
        sa.Column(
            "suspicions",
            sa.SmallInteger(),
            server_default="0",
            nullable=False,
            comment="decodings of it that were begun and never ended",
        ),
        sa.Column("crashed", sa.Text(), comment="JSON list of the positions that killed their worker twice"),
        sa.Column("error", sa.Text(), comment="why it failed"),
        sa.Column("model_id", sa.String(length=32), comment="the model that scored it"),
        sa.Column("engine", sa.String(length=32)),
        sa.Column("precision", sa.String(length=16)),
        sa.Column("worker", sa.String(length=255), comment="Celery node name"),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("decode_seconds", sa.Double(), comment="fetching and decoding, summed over threads"),
        sa.Column("predict_seconds", sa.Double()),
        sa.Column("total_seconds", sa.Double(), comment="from the worker's start to just before the commit"),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="the message, zlib-compressed JSON"),
        sa.ForeignKeyConstraint(
            ["scan_id"],
            ["scan.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_job_scan_status", "job", ["scan_id", "status"], unique=False)
    op.create_index("ix_job_worker_status", "job", ["worker", "status"], unique=False)
    op.create_table(
        "verdict",
        sa.Column("image_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("model_id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("p_real", sa.Double(), comment="the network's output; null unless status is ok"),
        sa.Column("reason", sa.Text(), nullable=False, comment="of a failure; empty if ok"),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="of the content when it was listed: size-mtime, or ETag"
        ),
        sa.Column(
            "digest", sa.LargeBinary(length=16), comment="first 16 bytes of the SHA-256 of the bytes that were scored"
        ),
        sa.Column("scan_id", sa.Integer(), nullable=False, comment="the latest scan that scored it"),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"],
            ["image.id"],
        ),
        sa.ForeignKeyConstraint(
            ["job_id"],
            ["job.id"],
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["model.id"],
        ),
        sa.ForeignKeyConstraint(
            ["scan_id"],
            ["scan.id"],
        ),
        sa.PrimaryKeyConstraint("image_id", "model_id"),
    )
    op.create_index("ix_verdict_model_score", "verdict", ["model_id", "p_real"], unique=False)
    op.create_index("ix_verdict_scan_score", "verdict", ["scan_id", "p_real"], unique=False)
    op.execute("""
CREATE VIEW labelled_verdict AS
SELECT image.uri, verdict.status, verdict.p_real,
       CASE WHEN verdict.p_real IS NULL THEN NULL
            WHEN verdict.p_real > model.real_above THEN 'real'
            WHEN verdict.p_real <= model.generated_below THEN 'generated'
            ELSE 'unsure' END || CASE WHEN model.trained THEN '' ELSE ' (untrained)' END AS label,
       verdict.reason, model.name AS model, model.trained, image.size_bytes, image.width, image.height,
       verdict.scan_id, verdict.scored_at, verdict.image_id, verdict.model_id, verdict.job_id
FROM verdict JOIN image ON image.id = verdict.image_id JOIN model ON model.id = verdict.model_id
    """)
