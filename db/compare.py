"""Two models side by side, on the images that both have scored."""

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, func, select

from db import schema
from db.engine import translated
from db.labels import label_column
from db.ledger import reading
from db.models import Model

#: Figures of more images than this are taken from a sample.
MOST_IMAGES = 1_000_000
#: How many images are looked at to learn how many there are in common.
PROBE_IMAGES = 100_000
LABELS = ("generated", "unsure", "real")

FIRST, SECOND = schema.verdict.alias("first"), schema.verdict.alias("second")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the scores of two models differ.

    Attributes:
        first: one model.
        second: the other one.
        images: how many both have scored; an estimate if ``share`` is less than 1.
        share: of all images, those that the figures are taken from, in (0, 1].
        labels: how many images have each pair of labels, without "(untrained)".
        correlation: of the scores (Pearson), in [-1, 1]; None if one model gives all the same.
        mean_difference: of the scores, second less first; None without images.
        mean_absolute_difference: of the scores; None without images.
        disagreements: URI and both scores of images with two labels, the farthest apart first.
    """

    first: Model
    second: Model
    images: int
    share: float
    labels: dict[tuple[str, str], int]
    correlation: float | None
    mean_difference: float | None
    mean_absolute_difference: float | None
    disagreements: tuple[tuple[str, float, float], ...]

    @property
    def compared(self) -> int:
        """How many images the figures are of."""
        return sum(self.labels.values())

    @property
    def agreement(self) -> float | None:
        """The share of images with the same label, in [0, 1]; None without images."""
        return sum(self.labels[label, label] for label in LABELS) / self.compared if self.compared else None


def compare_models(engine: Engine, first: Model, second: Model, *, limit: int) -> Comparison:
    """Compare the scores of two models.

    Args:
        engine: of the database.
        first: one model.
        second: the other one.
        limit: how many disagreements to return at most.
    """
    with translated(engine), reading(engine) as connection:
        share = _share_of(connection, first, second, MOST_IMAGES)
        labels, sums = _add_up(connection, first, second, share)
        disagreements = _disagreements(connection, first, second, share, limit)
    count = sum(labels.values())
    return Comparison(
        first,
        second,
        images=round(count / share),
        share=share,
        labels=labels,
        correlation=_correlation(count, sums),
        mean_difference=(sums["second"] - sums["first"]) / count if count else None,
        mean_absolute_difference=sums["apart"] / count if count else None,
        disagreements=disagreements,
    )


def read_points(engine: Engine, first: Model, second: Model, *, limit: int) -> tuple[list[tuple[float, float]], bool]:
    """Return both scores of at most so many images, and whether these are a random sample."""
    with translated(engine), reading(engine) as connection:
        share = _share_of(connection, first, second, limit)
        query = _pairs(select(FIRST.c.p_real, SECOND.c.p_real), first, second, share).limit(limit)
        return [(row[0], row[1]) for row in connection.execute(query)], share < 1


def _share_of(connection: Connection, first: Model, second: Model, most: int) -> float:
    """Return which share of the images to look at, in (0, 1], so that about so many of both models are among them."""
    verdict = schema.verdict
    scored = [
        connection.execute(
            select(func.count()).where(verdict.c.model_id == model.id, verdict.c.p_real.is_not(None))
        ).scalar_one()
        for model in (first, second)
    ]
    if min(scored) <= most:
        return 1.0
    probe = min(1.0, max(most, PROBE_IMAGES) / min(scored))
    common = int(connection.execute(_pairs(select(func.count()), first, second, probe)).scalar_one())
    return min(1.0, probe * most / max(common, 1))


def _pairs(query: Select[Any], first: Model, second: Model, share: float) -> Select[Any]:
    """Restrict a query of ``FIRST`` and ``SECOND`` to the images that both have scored, or a share of these."""
    query = query.select_from(FIRST.join(SECOND, FIRST.c.image_id == SECOND.c.image_id)).where(
        FIRST.c.p_real.is_not(None), SECOND.c.p_real.is_not(None)
    )
    ids: list[ColumnElement[str]] = [FIRST.c.model_id, SECOND.c.model_id]
    if share < 1:
        # Image ids are digests: those below a bound are a random sample, and one range of the primary key. The index
        # that begins with the model, which SQLite would prefer, must not look fit.
        bound = int(share * 2**128).to_bytes(16, "big")
        query = query.where(FIRST.c.image_id < bound, SECOND.c.image_id < bound)
        ids = [column.concat("") for column in ids]
    return query.where(and_(ids[0] == first.id, ids[1] == second.id))


def _add_up(
    connection: Connection, first: Model, second: Model, share: float
) -> tuple[dict[tuple[str, str], int], dict[str, float]]:
    """Return how many images have each pair of labels, and the sums that the figures are made of."""
    one, other = FIRST.c.p_real, SECOND.c.p_real
    terms = {
        "first": one,
        "second": other,
        "first_squared": one * one,
        "second_squared": other * other,
        "product": one * other,
        "apart": func.abs(other - one),
    }
    ours, theirs = label_column(one, first).label("ours"), label_column(other, second).label("theirs")
    columns: list[ColumnElement[Any]] = [
        ours,
        theirs,
        func.count().label("n"),
        *(func.sum(term).label(name) for name, term in terms.items()),
    ]
    labels = {(mine, yours): 0 for mine in LABELS for yours in LABELS}
    sums = dict.fromkeys(terms, 0.0)
    for row in connection.execute(_pairs(select(*columns), first, second, share).group_by(ours, theirs)):
        labels[row.ours, row.theirs] = row.n
        for name in terms:
            sums[name] += getattr(row, name)
    return labels, sums


def _disagreements(
    connection: Connection, first: Model, second: Model, share: float, limit: int
) -> tuple[tuple[str, float, float], ...]:
    one, other = FIRST.c.p_real, SECOND.c.p_real
    pairs = _pairs(select(FIRST.c.image_id, one.label("one"), other.label("other")), first, second, share)
    farthest = (
        pairs.where(label_column(one, first) != label_column(other, second))
        .order_by(func.abs(other - one).desc(), FIRST.c.image_id)
        .limit(limit)
        .subquery()
    )
    rows = connection.execute(
        select(schema.image.c.uri, farthest.c.one, farthest.c.other)
        .join(farthest, farthest.c.image_id == schema.image.c.id)
        .order_by(func.abs(farthest.c.other - farthest.c.one).desc(), farthest.c.image_id)
    )
    return tuple((row.uri, row.one, row.other) for row in rows)


def _correlation(count: int, sums: dict[str, float]) -> float | None:
    if not count:
        return None
    means = {name: value / count for name, value in sums.items()}
    spread = (means["first_squared"] - means["first"] ** 2) * (means["second_squared"] - means["second"] ** 2)
    if spread <= 1e-24:  # rounding
        return None
    return max(-1.0, min(1.0, (means["product"] - means["first"] * means["second"]) / math.sqrt(spread)))
