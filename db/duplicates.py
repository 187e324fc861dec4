"""Images that are the same: in their bytes, or nearly in what they show."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from sqlalchemy import Connection, Engine, and_, distinct, func, select

from core.errors import UsageError
from db import schema
from db.engine import translated
from db.filters import VIEW, byte_order
from db.ledger import chunks, reading

#: So many images of one group are named.
MOST_NAMED = 10_000


@dataclass(frozen=True, slots=True)
class Copy:
    """One image of a group.

    Attributes:
        uri: its name.
        verdicts: by the name of the model, the label, or the status of a failure.
    """

    uri: str
    verdicts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images that are the same.

    Attributes:
        key: what they have in common: in hexadecimal digits the digest of their bytes, or the hash of one's picture.
        images: how many there are.
        copies: the first ``MOST_NAMED`` of them.
    """

    key: str
    images: int
    copies: list[Copy]


def exact_duplicates(engine: Engine, *, limit: int | None = None) -> Iterator[Duplicates]:
    """Yield images whose scored bytes are the same under several names, the biggest groups first.

    No index knows the digests, for it would be written in random order with each verdict: this reads the table twice.
    Memory holds one group.

    Args:
        engine: of the database.
        limit: at most so many groups.
    """
    verdict = schema.verdict
    images = func.count(distinct(verdict.c.image_id))
    same = (
        select(verdict.c.digest, images.label("images"))
        .where(verdict.c.digest.is_not(None))
        .group_by(verdict.c.digest)
        .having(images > 1)
        .order_by(images.desc(), verdict.c.digest)
        .limit(limit)
        .cte("same")
    )
    of_view = and_(VIEW.c.image_id == verdict.c.image_id, VIEW.c.model_id == verdict.c.model_id)
    query = (
        select(same.c.digest, same.c.images, VIEW.c.uri, VIEW.c.model, VIEW.c.label, VIEW.c.status)
        .select_from(verdict.join(same, same.c.digest == verdict.c.digest).join(VIEW, of_view))
        .where(verdict.c.digest.in_(select(same.c.digest)))  # before SQLite looks up each one's image
        .order_by(same.c.images.desc(), same.c.digest, byte_order(VIEW.c.uri, engine.dialect), VIEW.c.model)
    )
    with (
        translated(engine),
        reading(engine) as connection,
        connection.execution_options(yield_per=1000).execute(query) as rows,
    ):
        for (digest, number), some in groupby(rows, key=lambda row: (bytes(row.digest), row.images)):
            yield Duplicates(digest.hex(), number, list(islice(_copies(some), MOST_NAMED)))


def near_duplicates(engine: Engine, *, distance: int, limit: int | None = None) -> Iterator[Duplicates]:
    """Yield images whose pictures look nearly the same, the biggest groups first.

    An image is in a group if its 64-bit difference hash is at most so many bits away from that of another in it.
    Memory grows by about 130 bytes an image that has such a hash.

    Args:
        engine: of the database.
        distance: in bits, 0 to ``db.near.FARTHEST``.
        limit: at most so many groups.

    Raises:
        UsageError: NumPy is not installed.
    """
    try:
        from db.near import NearImages
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'facesieve[worker]'") from error
    image = schema.image
    with translated(engine), reading(engine) as connection:
        near = NearImages()
        query = select(image.c.id, image.c.phash).where(image.c.phash.is_not(None))
        with connection.execution_options(yield_per=10_000).execute(query) as rows:
            for some in rows.partitions():
                near.add([bytes(row.id) for row in some], [row.phash for row in some])
        for key, ids in islice(near.groups(distance), limit):
            copies = _read_copies(connection, ids[:MOST_NAMED])
            if len(copies) > 1:  # an image without a verdict is only still there because somebody reviewed it
                yield Duplicates(key, len(ids), copies)


def _read_copies(connection: Connection, ids: list[bytes]) -> list[Copy]:
    columns = (VIEW.c.uri, VIEW.c.model, VIEW.c.label, VIEW.c.status)
    copies: list[Copy] = []
    for some in chunks(ids, 500):
        query = select(*columns).where(VIEW.c.image_id.in_(some)).order_by(VIEW.c.uri, VIEW.c.model)
        copies += _copies(connection.execute(query))
    return sorted(copies, key=lambda copy: copy.uri)


def _copies(rows: Iterable[Any]) -> Iterator[Copy]:
    """Yield images of rows in the order of their URIs, which have one for each model."""
    for uri, verdicts in groupby(rows, key=lambda row: row.uri):
        yield Copy(uri, {row.model: row.label or row.status for row in verdicts})
