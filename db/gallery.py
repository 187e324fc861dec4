"""The pictures of a report's gallery: the most generated, the most real and the most uncertain of a scan."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, select

from db import schema
from db.filters import VIEW
from db.ledger import chunks

#: The parts of the gallery.
GENERATED, UNCERTAIN, REAL = "generated", "uncertain", "real"

Row = dict[str, Any]
Key = tuple[bytes, str]  # of an image and of a model


@dataclass(frozen=True, slots=True)
class Picture:
    """A scored image of the gallery.

    Attributes:
        row: what is known of it, by the columns of the view, with ``digest``, ``fingerprint``, ``engine``,
            ``precision``, ``worker`` and ``review``, the newest row of that table as a mapping or None.
        parts: of the gallery that it is in.
        distance: of its score to the nearest threshold, in [0, 1].
    """

    row: Row
    parts: frozenset[str]
    distance: float


def read_pictures(connection: Connection, scan_id: int, thresholds: Collection[float], each: int) -> list[Picture]:
    """Read the pictures of a gallery, each once, by score. Takes as long for a scan of millions as for a small one.

    Args:
        connection: to read from.
        scan_id: whose verdicts.
        thresholds: an image is the more uncertain, the nearer its score is to one of them.
        each: pictures in each part.
    """

    def distance(row: Row) -> float:
        return min((abs(row["p_real"] - value) for value in thresholds), default=1.0)

    score = schema.verdict.c.p_real
    picked = _picked(scan_id).limit(each)
    near: dict[Key, Row] = {}
    for value in thresholds:
        near |= _read(connection, picked.where(score <= value).order_by(score.desc()))
        near |= _read(connection, picked.where(score > value).order_by(score))
    parts = {
        GENERATED: _read(connection, picked.order_by(score)),
        UNCERTAIN: dict(sorted(near.items(), key=lambda item: distance(item[1]))[:each]),
        REAL: _read(connection, picked.order_by(score.desc())),
    }
    rows: dict[Key, Row] = {key: row for members in parts.values() for key, row in members.items()}
    reviews = _reviews(connection, [image_id for image_id, _ in rows])
    return [
        Picture(
            row | {"review": reviews.get(key[0])},
            frozenset(part for part, members in parts.items() if key in members),
            distance(row),
        )
        for key, row in sorted(rows.items(), key=lambda item: (item[1]["p_real"], item[1]["uri"]))
    ]


def _picked(scan_id: int) -> Select[Any]:
    verdict = schema.verdict
    # Nothing but the score orders it, so that the index alone does.
    return select(verdict.c.image_id, verdict.c.model_id, verdict.c.digest, verdict.c.fingerprint).where(
        verdict.c.scan_id == scan_id, verdict.c.p_real.is_not(None)
    )


def _read(connection: Connection, picked: Select[Any]) -> dict[Key, Row]:
    chosen, job = picked.subquery(), schema.job
    query = (
        select(*VIEW.c, chosen.c.digest, chosen.c.fingerprint, job.c.engine, job.c.precision, job.c.worker)
        .select_from(chosen)
        .join(VIEW, and_(VIEW.c.image_id == chosen.c.image_id, VIEW.c.model_id == chosen.c.model_id))
        .join(job, job.c.id == VIEW.c.job_id)
    )
    return {(row.image_id, row.model_id): dict(row._mapping) for row in connection.execute(query)}


def _reviews(connection: Connection, image_ids: list[bytes]) -> dict[bytes, Row]:
    review = schema.review
    found: dict[bytes, Row] = {}
    for some in chunks(image_ids, 500):
        rows = connection.execute(select(review).where(review.c.image_id.in_(some)).order_by(review.c.id))
        found |= {row.image_id: dict(row._mapping) for row in rows}  # the newest comes last and counts
    return found
