"""Everything that the database knows of one image."""

import re
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, select

from core.errors import UsageError
from core.images import ImageRef
from core.uris import member_uri, named_uri, split_member
from db import schema
from db.engine import translated
from db.ledger import reading

VIEW = schema.labelled_verdict
SHORTEST_ID = 8
MOST_TWINS = 10
#: Equal bytes give equal scores, but for the rounding that depends on what else was in the batch.
ROUNDING = 1e-6


def describe_image(engine: Engine, text: str) -> dict[str, Any]:
    """Return all that is known of an image.

    Args:
        engine: of the database.
        text: a path, absolute or relative to the current directory; a URI; or the beginning of an image id in hex,
            of ``SHORTEST_ID`` digits or more.

    Returns:
        What the image's row says, its ``verdicts``, each with its ``faces``, and ``reviews``, the newest first, and
        ``same_content``: URIs of at most ``MOST_TWINS`` images with the same bytes. These are looked for among the
        images with the same score, because no index leads from a digest to its images.

    Raises:
        UsageError: there is no such image, or there are several.
    """
    with translated(engine), reading(engine) as connection:
        image = _find(connection, text)
        verdicts = _verdicts(connection, image.id)
        return {
            "id": image.id.hex(),
            "uri": image.uri,
            "size_bytes": image.size_bytes,
            "width": image.width,
            "height": image.height,
            "phash": None if image.phash is None else f"{image.phash % 2**64:016x}",
            "verdicts": verdicts,
            "reviews": _reviews(connection, image.id),
            "same_content": _twins(connection, image.id, verdicts),
        }


def _find(connection: Connection, text: str) -> Row[Any]:
    image = schema.image
    try:
        uri = text if re.match(r"[a-z][a-z0-9+.-]*://", text) else _local_uri(text)
        found = connection.execute(select(image).where(image.c.id == ImageRef(uri, "", 0).id)).one_or_none()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r:.200} is no URI: percent-encode what is not UTF-8") from None
    if found is None and re.fullmatch(rf"[0-9a-f]{{{SHORTEST_ID},32}}", text):
        low, high = (bytes.fromhex(text.ljust(32, digit)) for digit in "0f")
        some = connection.execute(
            select(image).where(image.c.id.between(low, high)).order_by(image.c.id).limit(2)
        ).all()
        if len(some) > 1:
            raise UsageError(
                f"{text} is the beginning of several image ids, such as {some[0].id.hex()}: give more of it"
            )
        found = some[0] if some else None
    if found is None:
        raise UsageError(f"the database has no image {uri}: see `db list --path '*NAME*'`")
    return found


def _local_uri(path: str) -> str:
    archive, member = split_member(path)
    uri = named_uri(archive)
    return uri if member is None else member_uri(uri, member)


def _verdicts(connection: Connection, image_id: bytes) -> list[dict[str, Any]]:
    verdict, job = schema.verdict, schema.job
    names = ("model", "model_id", "status", "p_real", "label", "reason", "scan_id", "job_id", "scored_at")
    query = (
        select(
            *(VIEW.c[name] for name in names),
            verdict.c.fingerprint,
            verdict.c.digest,
            *(job.c[name] for name in ("worker", "engine", "precision")),
        )
        .join(verdict, (verdict.c.image_id == VIEW.c.image_id) & (verdict.c.model_id == VIEW.c.model_id))
        .join(job, job.c.id == VIEW.c.job_id)
        .where(VIEW.c.image_id == image_id)
        .order_by(VIEW.c.scored_at.desc(), VIEW.c.model_id)
    )
    rows = [dict(row._mapping) for row in connection.execute(query)]
    faces = _faces(connection, image_id)
    return [
        row | {"digest": row["digest"] and row["digest"].hex(), "faces": faces.get(row["model_id"], [])} for row in rows
    ]


def _faces(connection: Connection, image_id: bytes) -> dict[str, list[dict[str, Any]]]:
    """Return the faces that were found in an image, by model."""
    face = schema.face
    names = ("number", "x", "y", "width", "height", "confidence", "p_real")
    query = select(face.c.model_id, *(face.c[name] for name in names)).where(face.c.image_id == image_id)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query.order_by(face.c.number)):
        found.setdefault(row.model_id, []).append({name: getattr(row, name) for name in names})
    return found


def _reviews(connection: Connection, image_id: bytes) -> list[dict[str, Any]]:
    review = schema.review
    names = ("label", "note", "reviewer", "reviewed_at")
    query = select(*(review.c[name] for name in names)).where(review.c.image_id == image_id)
    return [dict(row._mapping) for row in connection.execute(query.order_by(review.c.id.desc()))]


def _twins(connection: Connection, image_id: bytes, verdicts: list[dict[str, Any]]) -> list[str]:
    verdict, image = schema.verdict, schema.image
    known = [row for row in verdicts if row["digest"]]
    if not known:
        return []
    # By the model whose score is the least common one: most are close to 0 or 1.
    row = min(known, key=lambda row: abs((row["p_real"] or 0) - 0.5))
    score = row["p_real"]
    is_close: ColumnElement[bool] = (
        verdict.c.p_real.is_(None) if score is None else verdict.c.p_real.between(score - ROUNDING, score + ROUNDING)
    )
    query = (
        select(image.c.uri)
        .join(verdict, verdict.c.image_id == image.c.id)
        .where(
            verdict.c.model_id == row["model_id"],
            is_close,
            verdict.c.digest == bytes.fromhex(row["digest"]),
            verdict.c.image_id != image_id,
        )
        .limit(MOST_TWINS)
    )
    return sorted(connection.execute(query).scalars())
