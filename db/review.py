"""Reviews: what people say of images. A review is a row that is added, or taken back by whoever wrote it."""

import heapq
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from threading import Lock
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, delete, exists, func, insert, select, union_all

from core.cli import printable
from db import schema
from db.engine import translated
from db.filters import VIEW, Filter, restrict
from db.ledger import reading

#: What a person may say of an image.
LABELS = ("real", "generated", "unclear")
MOST_IMAGES = 100_000
_CHUNK = 500
_SAMPLE = 2000


@dataclass(frozen=True, slots=True)
class Choice:
    """An image that is to be reviewed.

    Attributes:
        image_id: of the image.
        model_id: whose verdict led to it.
    """

    image_id: bytes
    model_id: str


def choose_images(
    engine: Engine, wanted: Filter, *, order: str = "uncertain", limit: int = MOST_IMAGES, again: bool = False
) -> list[Choice]:
    """Return the images to be reviewed, each once; an image without a score cannot be.

    Args:
        engine: of the database.
        wanted: whose verdicts are taken into account; of several models', the first in the order counts.
        order: by ``score``, ``-score``, ``uncertain``: away from the middle of a model's thresholds, or ``random``.
        limit: at most so many; they are held in memory.
        again: also those that have a review.
    """
    with translated(engine), reading(engine) as connection:
        models = connection.execute(
            select(schema.model).where(*([schema.model.c.name == wanted.model] if wanted.model else []))
        ).all()
        start = secrets.token_bytes(16)
        chosen: dict[bytes, str] = {}
        verdicts = partial(_verdicts_of, wanted=wanted, again=again, engine=engine)
        queries = {model: verdicts(model, by_id=order == "random") for model in models}
        if order == "random" and not _are_frequent(connection, list(queries.values())):
            queries = {model: verdicts(model, by_id=False) for model in models}  # there are few to draw from
        streams = [
            _stream(connection, query, part, limit)
            for model, query in queries.items()
            for part in _parts(order, (model.generated_below + model.real_above) / 2, start)
        ]
        for _, image_id, model_id in heapq.merge(*streams, key=itemgetter(0)):
            chosen.setdefault(image_id, model_id)
            if len(chosen) == limit:
                break
        for stream in streams:
            stream.close()
    return [Choice(image_id, model_id) for image_id, model_id in chosen.items()]


class Session:
    """One reviewer's way through chosen images; safe to share between threads.

    Attributes:
        reviewer: who it is.
        total: number of images.
    """

    def __init__(self, engine: Engine, choices: Sequence[Choice], reviewer: str, *, again: bool = False) -> None:
        """Begin with nothing reviewed.

        Args:
            engine: of the database.
            choices: the images, in order.
            reviewer: goes into every row.
            again: an image is still to be reviewed if all its reviews are older than the session.
        """
        self.reviewer = reviewer
        self.total = len(choices)
        self._engine = engine
        self._choices = choices
        self._again = again
        self._positions = {choice.image_id: position for position, choice in enumerate(choices)}
        self._written: list[tuple[int, bytes, str]] = []  # rows of this session: id, image, label
        self._lock = Lock()

    def item(self, position: int) -> dict[str, Any]:
        """Return what is known of the image at a position, fit for JSON, with the review that counts or None.

        Raises:
            KeyError: there is no such position, or the database knows the image no more.
        """
        if not 0 <= position < self.total:
            raise KeyError(position)
        choice = self._choices[position]
        with translated(self._engine), reading(self._engine) as connection:
            found = connection.execute(_item_query(choice)).one_or_none()
            review = connection.execute(_review_query(choice.image_id)).one_or_none()
        if found is None:
            raise KeyError(position)
        return {
            **found._mapping,
            "uri": printable(found.uri),
            "image": choice.image_id.hex(),
            "position": position,
            "review": {**review._mapping, "reviewed_at": review.reviewed_at.isoformat()} if review else None,
        }

    def uri(self, image_id: bytes) -> tuple[str, str]:
        """Return the URI of one of the images, and its fingerprint when it was scored last, or an empty text.

        Raises:
            KeyError: it is none of them, or the database knows it no more.
        """
        image, verdict = schema.image, schema.verdict
        if image_id not in self._positions:
            raise KeyError(image_id)
        query = (
            select(image.c.uri, verdict.c.fingerprint)
            .outerjoin(verdict, verdict.c.image_id == image.c.id)
            .where(image.c.id == image_id)
            .order_by(verdict.c.scored_at.desc())
            .limit(1)
        )
        with translated(self._engine), reading(self._engine) as connection:
            found = connection.execute(query).one_or_none()
        if found is None:
            raise KeyError(image_id)
        return found.uri, found.fingerprint or ""

    def record(self, image_id: bytes, label: str, note: str) -> int:
        """Add a review of one of the images.

        Returns:
            The position of the next one that is to be reviewed, see ``next_open``.

        Raises:
            KeyError: it is none of them, or the database knows it no more.
        """
        self.uri(image_id)
        values = {"image_id": image_id, "label": label, "note": note, "reviewer": self.reviewer}
        add = insert(schema.review).values(**values, reviewed_at=datetime.now(UTC)).returning(schema.review.c.id)
        with self._lock:
            with translated(self._engine), self._engine.begin() as connection:
                row_id = connection.execute(add).scalar_one()
            self._written.append((row_id, image_id, label))
        return self.next_open(self._positions[image_id] + 1)

    def undo(self) -> int | None:
        """Delete the newest row of this session and return the position of its image; None if no row is left."""
        review = schema.review
        with self._lock:
            if not self._written:
                return None
            row_id, image_id, _ = self._written[-1]
            with translated(self._engine), self._engine.begin() as connection:
                connection.execute(delete(review).where(review.c.id == row_id, review.c.reviewer == self.reviewer))
            self._written.pop()
        return self._positions[image_id]

    def labels(self) -> dict[str, int]:
        """Return how many images got each label in this session; of several, an image's last one counts."""
        with self._lock:
            counts = Counter({image_id: label for _, image_id, label in self._written}.values())
        return {label: counts[label] for label in LABELS}

    def next_open(self, position: int) -> int:
        """Return the position of the next image that is to be reviewed; ``total`` means that none is left.

        The search begins at the given position and goes on from the first. What others review at the same time is to be
        reviewed no more.
        """
        for start in range(position, position + self.total, _CHUNK):
            places = [place % self.total for place in range(start, min(start + _CHUNK, position + self.total))]
            done = self._done([self._choices[place].image_id for place in places])
            for place in places:
                if self._choices[place].image_id not in done:
                    return place
        return self.total

    def _done(self, image_ids: list[bytes]) -> set[bytes]:
        if self._again:
            with self._lock:
                return {image_id for _, image_id, _ in self._written}
        review = schema.review
        with translated(self._engine), reading(self._engine) as connection:
            return set(connection.execute(select(review.c.image_id).where(review.c.image_id.in_(image_ids))).scalars())


def _item_query(choice: Choice) -> Select[Any]:
    names = ("uri", "p_real", "label", "model", "width", "height", "size_bytes")
    thresholds = (schema.model.c.generated_below, schema.model.c.real_above)
    return (
        select(*(VIEW.c[name] for name in names), *thresholds)
        .join(schema.model, schema.model.c.id == VIEW.c.model_id)
        .where(VIEW.c.image_id == choice.image_id, VIEW.c.model_id == choice.model_id)
    )


def _review_query(image_id: bytes) -> Select[Any]:
    review = schema.review
    columns = (review.c.label, review.c.note, review.c.reviewer, review.c.reviewed_at)
    return select(*columns).where(review.c.image_id == image_id).order_by(review.c.id.desc()).limit(1)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some verdicts of a model, in an order that an index serves. Several parts merged by rank give the whole."""

    where: ColumnElement[bool]
    order_by: ColumnElement[Any]
    rank: Callable[[Row[Any]], Any]


def _parts(order: str, middle: float, start: bytes) -> list[_Part]:
    score, image_id = VIEW.c.p_real, VIEW.c.image_id
    match order:
        case "uncertain":  # upwards and downwards from the middle
            return [
                _Part(score <= middle, score.desc(), lambda row: middle - row.p_real),
                _Part(score > middle, score.asc(), lambda row: row.p_real - middle),
            ]
        case "random":  # ids are digests: in their order, from any one on, images come as if drawn by lot
            return [
                _Part(image_id >= start, image_id.asc(), lambda row: (0, row.image_id)),
                _Part(image_id < start, image_id.asc(), lambda row: (1, row.image_id)),
            ]
        case "-score":
            return [_Part(score.is_not(None), score.desc(), lambda row: -row.p_real)]
        case _:
            return [_Part(score.is_not(None), score.asc(), lambda row: row.p_real)]


def _verdicts_of(model: Row[Any], *, wanted: Filter, again: bool, engine: Engine, by_id: bool) -> Select[Any]:
    """Return a query of the wanted verdicts of a model, to be read by their scores, or by the images' ids."""
    # Appending nothing hides the column from the index on scores, which SQLite would prefer, and read to its end.
    model_id = VIEW.c.model_id + "" if by_id else VIEW.c.model_id
    query = select(VIEW.c.image_id, VIEW.c.model_id, VIEW.c.p_real).where(
        model_id == model.id, VIEW.c.p_real.is_not(None)
    )
    # The view says what has a label; these bounds are only for the index, which knows nothing of labels.
    if wanted.label in {"real", "unsure"}:
        lowest = model.real_above if wanted.label == "real" else model.generated_below
        query = query.where(VIEW.c.p_real >= lowest)
    if wanted.label in {"generated", "unsure"}:
        highest = model.generated_below if wanted.label == "generated" else model.real_above
        query = query.where(VIEW.c.p_real <= highest)
    if not again:
        query = query.where(~exists().where(schema.review.c.image_id == VIEW.c.image_id))
    return restrict(query, replace(wanted, model=None), engine)


def _are_frequent(connection: Connection, queries: list[Select[Any]]) -> bool:
    """Return whether a hundredth of the images is wanted, by those with the lowest ids: ids are digests."""
    image = schema.image
    end = connection.execute(select(image.c.id).order_by(image.c.id).offset(_SAMPLE).limit(1)).scalar()
    if end is None or not queries:
        return True
    samples = union_all(*(query.where(VIEW.c.image_id < end) for query in queries)).subquery()
    return connection.execute(select(func.count()).select_from(samples)).scalar_one() >= _SAMPLE / 100


def _stream(connection: Connection, query: Select[Any], part: _Part, limit: int) -> Generator[tuple[Any, bytes, str]]:
    # One model has one verdict on an image: the first `limit` of the whole are among the first of each part.
    query = query.where(part.where).order_by(part.order_by).limit(limit)
    with connection.execution_options(yield_per=1000).execute(query) as rows:
        for row in rows:
            yield part.rank(row), row.image_id, row.model_id
