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
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

from core.verdicts import Status

#: The newest migration; a database at another one is refused.
HEAD = "0005"
#: Where the database keeps that; not Alembic's default name, which another program in the same database may use.
VERSION_TABLE = "facesieve_schema"
#: Characters of a reason that are kept: PostgreSQL has no room for more than 2,704 bytes in an entry of an index.
REASON_LENGTH = 500
#: What the index of verdicts without a score holds. A query must say the same, and not by a parameter, to be led there.
_UNSCORED = text("status <> 'ok'")
#: What the index of jobs that are open holds; likewise.
IS_OPEN = text("status IN ('queued', 'running', 'failed')")

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
    Column(
        "name",
        String(64),
        nullable=False,
        index=True,
        comment="of the artifact, and .faces if it scores faces; other weights, another row",
    ),
    Column("sha256", String(64), nullable=False, comment="of the weights"),
    Column("architecture", String(64), nullable=False, comment="card-resnet, efficientnet-lite0, ensemble, ..."),
    Column("preprocess", String(32), nullable=False, comment="how bytes become the network's input"),
    Column("trained", Boolean, nullable=False, comment="false: random weights, scores mean nothing"),
    Column("real_above", Double, nullable=False, comment="p_real above this is labelled real"),
    Column("generated_below", Double, nullable=False, comment="p_real at or below this is labelled generated"),
    Column("registered_at", UtcTime, nullable=False, comment="when a worker last started with it"),
    Column("thresholds_set_at", UtcTime, comment="when `db threshold` chose them; null: they are the artifact's"),
    Column("operating_points", Text, comment="JSON: the generated_below that keeps each false-positive rate"),
    comment="A model that a worker has used, and the thresholds of its labels.",
)

scan = Table(
    "scan",
    metadata,
    Column("id", Integer, primary_key=True, comment="counted from 1"),
    Column("sources", Text, nullable=False, comment="JSON list of what was scanned"),
    Column("model_name", String(64), nullable=False, comment="name of the model asked for"),
    Column("model_id", String(32), comment="the model whose verdicts were skipped; null if none was known"),
    Column("status", String(16), nullable=False, comment="listing, listed, interrupted, cancelled or forgotten"),
    Column("listed", BigInteger, nullable=False, comment="images found, so far"),
    Column("skipped", BigInteger, nullable=False, comment="of these, not sent: a verdict was there, or listed twice"),
    Column("ignored", BigInteger, nullable=False, comment="files passed over because of their names; not in listed"),
    Column("unlistable", Integer, nullable=False, comment="folders that could not be listed"),
    Column("started_at", UtcTime, nullable=False, comment="begin of the listing"),
    Column("touched_at", UtcTime, nullable=False, comment="sign of life of the producer while it is listing"),
    Column("finished_at", UtcTime, comment="end of the listing"),
    comment="One run of a producer over some sources, with the books of its listing.",
)

job = Table(
    "job",
    metadata,
    Column("id", String(32), primary_key=True, comment="also the Celery task's id"),
    Column("scan_id", Integer, ForeignKey("scan.id"), nullable=False, comment="that it is part of"),
    Column("status", String(16), nullable=False, comment="queued, running, done, failed, cancelled or forgotten"),
    Column("images", Integer, nullable=False, comment="how many it has"),
    *(
        Column(f"n_{status}", Integer, nullable=False, server_default="0", comment=f"of its images, those {status}")
        for status in Status
    ),
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
    Column(
        "pruned", Integer, nullable=False, server_default="0", comment="of its images, those whose verdict is pruned"
    ),
    Column("error", Text, comment="why it failed"),
    Column("model_id", String(32), comment="the model that scored it"),
    Column("engine", String(32), comment="tensorflow or openvino"),
    Column("precision", String(16), comment="of its arithmetic: float32, bf16 or int8"),
    Column("worker", String(255), comment="Celery node name"),
    Column("queued_at", UtcTime, nullable=False, comment="when it was last sent"),
    Column("started_at", UtcTime, comment="when a worker last began it"),
    Column("finished_at", UtcTime, comment="when its verdicts were saved, or it was given up"),
    Column("decode_seconds", Double, comment="fetching and decoding, summed over threads"),
    Column("predict_seconds", Double, comment="forward passes"),
    Column("total_seconds", Double, comment="from the worker's start to just before the commit"),
    # Last: what stands behind a long value is slow to read on SQLite.
    Column("payload", LargeBinary, nullable=False, comment="the message, zlib-compressed JSON"),
    Index("ix_job_scan_status", "scan_id", "status"),
    Index("ix_job_worker_status", "worker", "status"),
    Index("ix_job_finished", "finished_at"),
    # All that monitoring asks of jobs that are open; they are few, and those that are done cost nothing.
    Index(
        "ix_job_open",
        "scan_id",
        "status",
        "queued_at",
        "images",
        "losses",
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    ),
    comment="The images of one message, and what became of them: together the ledger of a scan.",
)

image = Table(
    "image",
    metadata,
    Column("id", LargeBinary(16), primary_key=True, comment="first 16 bytes of the SHA-256 of the URI"),
    Column("uri", Text, nullable=False, comment="absolute path, or a percent-encoded file:// if that is no UTF-8"),
    Column("size_bytes", BigInteger, nullable=False, comment="when listed"),
    Column("width", Integer, comment="pixels"),
    Column("height", Integer, comment="pixels"),
    Column("phash", BigInteger, comment="64-bit difference hash of the picture, to find near-duplicates by"),
    # PostgreSQL: by bytes, as SQLite does, so that all images below a folder are one range.
    Index("ix_image_uri", "uri", postgresql_ops={"uri": "text_pattern_ops"}),
    comment="A file or object that was scored, or could not be.",
)

verdict = Table(
    "verdict",
    metadata,
    Column("image_id", LargeBinary(16), ForeignKey("image.id"), primary_key=True, comment="what was scored"),
    Column("model_id", String(32), ForeignKey("model.id"), primary_key=True, comment="by which model"),
    Column("status", String(16), nullable=False, comment="ok, no_face, or the name of the failure"),
    Column("p_real", Double, comment="the network's output, for the most generated face; null unless status is ok"),
    Column("reason", Text, nullable=False, comment="of a failure, its first 500 characters; empty if ok"),
    Column("fingerprint", Text, nullable=False, comment="of the content when it was listed: size-mtime, or ETag"),
    Column("digest", LargeBinary(16), comment="first 16 bytes of the SHA-256 of the bytes that were scored"),
    Column("scan_id", Integer, ForeignKey("scan.id"), nullable=False, comment="the latest scan that scored it"),
    Column("job_id", String(32), ForeignKey("job.id"), nullable=False, comment="that wrote this row"),
    Column("scored_at", UtcTime, nullable=False, comment="when it was saved"),
    Index("ix_verdict_model_score", "model_id", "p_real"),
    Index("ix_verdict_scan_score", "scan_id", "p_real"),
    # All that is counted of failures is read here; a verdict with a score costs nothing.
    Index("ix_verdict_unscored", "model_id", "status", "reason", sqlite_where=_UNSCORED, postgresql_where=_UNSCORED),
    comment="What one model says of one image, or why it cannot: the results.",
)

face = Table(
    "face",
    metadata,
    Column("image_id", LargeBinary(16), primary_key=True, comment="that it is in"),
    Column("model_id", String(32), primary_key=True, comment="that scored it; its name ends in .faces"),
    Column("number", SmallInteger, primary_key=True, autoincrement=False, comment="in the image, from 1, the largest"),
    Column("x", Integer, nullable=False, comment="left edge of its box, in pixels of the image as it is shown"),
    Column("y", Integer, nullable=False, comment="upper edge"),
    Column("width", Integer, nullable=False, comment="pixels"),
    Column("height", Integer, nullable=False, comment="pixels"),
    Column("confidence", Double, nullable=False, comment="of the detector, in [0, 1]"),
    Column("p_real", Double, nullable=False, comment="the network's output; the lowest is the verdict's"),
    ForeignKeyConstraint(["image_id", "model_id"], ["verdict.image_id", "verdict.model_id"], ondelete="CASCADE"),
    comment="A face that was found in an image and scored; it goes with its verdict.",
)

review = Table(
    "review",
    metadata,
    Column("id", Integer, primary_key=True, comment="later ones are higher"),
    Column("image_id", LargeBinary(16), ForeignKey("image.id"), nullable=False, comment="that was looked at"),
    Column("label", String(16), nullable=False, comment="real, generated or unclear; an image's newest row counts"),
    Column("note", Text, nullable=False, comment="of the reviewer; empty if none"),
    Column("reviewer", String(64), nullable=False, comment="who looked at it"),
    Column("reviewed_at", UtcTime, nullable=False, comment="when it was recorded"),
    Index("ix_review_image", "image_id"),
    comment="What a person says of an image; rows are only added, and deleted by an undo.",
)

#: The view that derives labels from scores and each model's thresholds: a new threshold needs no new scores.
#: It is made by a migration, hence not in ``metadata``. Random weights are called untrained in every label.
labelled_verdict = Table(
    "labelled_verdict",
    MetaData(),
    Column("uri", Text, comment="image.uri"),
    Column("status", String, comment="verdict.status"),
    Column("p_real", Double, comment="verdict.p_real"),
    Column("label", String, comment="real, generated or unsure, ending in (untrained) for random weights; or null"),
    Column("reason", Text, comment="verdict.reason"),
    Column("model", String, comment="model.name"),
    Column("trained", Boolean, comment="model.trained"),
    Column("size_bytes", BigInteger, comment="image.size_bytes"),
    Column("width", Integer, comment="image.width"),
    Column("height", Integer, comment="image.height"),
    Column("scan_id", Integer, comment="verdict.scan_id"),
    Column("scored_at", UtcTime, comment="verdict.scored_at"),
    Column("image_id", LargeBinary, comment="image.id"),
    Column("model_id", String, comment="model.id"),
    Column("job_id", String, comment="verdict.job_id"),
    comment="Verdicts with their images and labels: the thresholds of the model, applied to the score.",
)
