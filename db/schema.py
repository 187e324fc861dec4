"""The tables and the view, as SQLAlchemy Core. Migrations bring a database to this state; a test compares the two."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
)

from core.verdicts import Status

#: The newest migration; a database at another one is refused.
HEAD = "0002"
#: Where the database keeps that; not Alembic's default name, which another program in the same database may use.
VERSION_TABLE = "facesieve_schema"

metadata = MetaData()


class UtcTime(TypeDecorator[datetime]):
    """A moment: stored in UTC, read as an aware datetime on SQLite too, which has no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn the moment into UTC."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Say that the moment is UTC."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


model = Table(
    "model",
    metadata,
    Column("id", String(32), primary_key=True, comment="digest of its name and whatever decides a score"),
    Column("name", String(64), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, comment="of the weights"),
    Column("architecture", String(64), nullable=False),
    Column("preprocess", String(32), nullable=False),
    Column("trained", Boolean, nullable=False, comment="false: random weights, scores mean nothing"),
    Column("real_above", Double, nullable=False, comment="p_real above this is labelled real"),
    Column("generated_below", Double, nullable=False, comment="p_real at or below this is labelled generated"),
    Column("registered_at", UtcTime, nullable=False),
    Column("thresholds_set_at", UtcTime, comment="when `db threshold` chose them; null: they are the artifact's"),
    Column("operating_points", Text, comment="JSON: the generated_below that keeps each false-positive rate"),
)

scan = Table(
    "scan",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sources", Text, nullable=False, comment="JSON list of what was scanned"),
    Column("model_name", String(64), nullable=False, comment="artifact asked for"),
    Column("model_id", String(32), comment="the model whose verdicts were skipped; null if none was known"),
    Column("status", String(16), nullable=False, comment="listing, listed, interrupted or cancelled"),
    Column("listed", BigInteger, nullable=False, comment="images found, so far"),
    Column("skipped", BigInteger, nullable=False, comment="of these, not sent: a verdict was there, or listed twice"),
    Column("ignored", BigInteger, nullable=False, comment="files passed over because of their names; not in listed"),
    Column("unlistable", Integer, nullable=False, comment="folders that could not be listed"),
    Column("started_at", UtcTime, nullable=False),
    Column("touched_at", UtcTime, nullable=False, comment="sign of life of the producer while it is listing"),
    Column("finished_at", UtcTime, comment="end of the listing"),
)

job = Table(
    "job",
    metadata,
    Column("id", String(32), primary_key=True, comment="also the Celery task's id"),
    Column("scan_id", Integer, ForeignKey("scan.id"), nullable=False),
    Column("status", String(16), nullable=False, comment="queued, running, done, failed or cancelled"),
    Column("images", Integer, nullable=False, comment="how many it has"),
    *(Column(f"n_{status}", Integer, nullable=False, server_default="0") for status in Status),
    Column("deliveries", Integer, nullable=False, server_default="0", comment="times a worker began it"),
    Column("losses", Integer, nullable=False, server_default="0", comment="times the worker died in it"),
    Column("suspect", Integer, comment="position of the image that was being decoded, in a careful run"),
    Column(
        "suspicions",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="decodings of it that were begun and never ended",
    ),
    Column("crashed", Text, comment="JSON list of the positions that killed their worker twice"),
    Column("error", Text, comment="why it failed"),
    Column("model_id", String(32), comment="the model that scored it"),
    Column("engine", String(32)),
    Column("precision", String(16)),
    Column("worker", String(255), comment="Celery node name"),
    Column("queued_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("decode_seconds", Double, comment="fetching and decoding, summed over threads"),
    Column("predict_seconds", Double),
    Column("total_seconds", Double, comment="from the worker's start to just before the commit"),
    # Last: what stands behind a long value is slow to read on SQLite.
    Column("payload", LargeBinary, nullable=False, comment="the message, zlib-compressed JSON"),
    Index("ix_job_scan_status", "scan_id", "status"),
    Index("ix_job_worker_status", "worker", "status"),
)

image = Table(
    "image",
    metadata,
    Column("id", LargeBinary(16), primary_key=True, comment="first 16 bytes of the SHA-256 of the URI"),
    Column("uri", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("width", Integer, comment="pixels"),
    Column("height", Integer, comment="pixels"),
    Column("phash", BigInteger, comment="64-bit difference hash of the picture, to find near-duplicates by"),
    # PostgreSQL: by bytes, as SQLite does, so that all images below a folder are one range.
    Index("ix_image_uri", "uri", postgresql_ops={"uri": "text_pattern_ops"}),
)

verdict = Table(
    "verdict",
    metadata,
    Column("image_id", LargeBinary(16), ForeignKey("image.id"), primary_key=True),
    Column("model_id", String(32), ForeignKey("model.id"), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("p_real", Double, comment="the network's output; null unless status is ok"),
    Column("reason", Text, nullable=False, comment="of a failure; empty if ok"),
    Column("fingerprint", Text, nullable=False, comment="of the content when it was listed: size-mtime, or ETag"),
    Column("digest", LargeBinary(16), comment="first 16 bytes of the SHA-256 of the bytes that were scored"),
    Column("scan_id", Integer, ForeignKey("scan.id"), nullable=False, comment="the latest scan that scored it"),
    Column("job_id", String(32), ForeignKey("job.id"), nullable=False),
    Column("scored_at", UtcTime, nullable=False),
    Index("ix_verdict_model_score", "model_id", "p_real"),
    Index("ix_verdict_scan_score", "scan_id", "p_real"),
)

review = Table(
    "review",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("image_id", LargeBinary(16), ForeignKey("image.id"), nullable=False),
    Column("label", String(16), nullable=False, comment="real, generated or unclear; an image's newest row counts"),
    Column("note", Text, nullable=False, comment="of the reviewer; empty if none"),
    Column("reviewer", String(64), nullable=False, comment="who looked at it"),
    Column("reviewed_at", UtcTime, nullable=False),
    Index("ix_review_image", "image_id"),
)

#: The view that derives labels from scores and each model's thresholds: a new threshold needs no new scores.
#: It is made by a migration, hence not in ``metadata``. Random weights are called untrained in every label.
labelled_verdict = Table(
    "labelled_verdict",
    MetaData(),
    Column("uri", Text),
    Column("status", String),
    Column("p_real", Double),
    Column("label", String),
    Column("reason", Text),
    Column("model", String),
    Column("trained", Boolean),
    Column("size_bytes", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("scan_id", Integer),
    Column("scored_at", UtcTime),
    Column("image_id", LargeBinary),
    Column("model_id", String),
    Column("job_id", String),
)
