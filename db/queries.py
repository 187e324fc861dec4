"""Reads of verdicts: lists, and what is scored already. Labels are shown as the view has them, never from a column."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from heapq import merge
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, bindparam, select
from sqlalchemy.types import NullType

from core.images import ImageRef
from core.verdicts import ANSWERS
from db import schema
from db.access import FEW, Access, Part
from db.engine import translated
from db.filters import VIEW, Filter, byte_order
from db.ledger import chunks, reading

#: What a list shows, in this order.
COLUMNS = (
    "uri", "status", "p_real", "label", "reason", "model", "trained", "scan_id", "scored_at", "width", "height",
    "size_bytes",
)  # fmt: skip
#: By what a list can be ordered, as Python compares it: no score comes last, equals are in the order of their URIs.
ORDERS: dict[str, Callable[[Row[Any]], tuple[Any, ...]]] = {
    "score": lambda row: (row.p_real is None, row.p_real or 0.0, row.uri),
    "-score": lambda row: (row.p_real is None, -(row.p_real or 0.0), row.uri),
    "path": lambda row: (row.uri,),
    "time": lambda row: (row.scored_at, row.uri),
}


def find_model(engine: Engine, name: str) -> str | None:
    """Return the id of the model that was last registered under a name; None if there is none."""
    model = schema.model
    newest = select(model.c.id).where(model.c.name == name).order_by(model.c.registered_at.desc()).limit(1)
    with translated(engine), reading(engine) as connection:
        return connection.execute(newest).scalar()


def scored_fingerprints(
    engine: Engine, model_id: str, refs: Sequence[ImageRef], *, only_ok: bool = False
) -> dict[str, str]:
    """Return what is already scored by a model: the fingerprint of the scored content, by URI.

    Args:
        engine: of the database.
        model_id: whose verdicts.
        refs: which images.
        only_ok: leave out failures, so that they are tried again.
    """
    verdict = schema.verdict
    uris = {ref.id: ref.uri for ref in refs}
    # Drivers take bytes as they are; SQLAlchemy's type would wrap each one first.
    some_ids = bindparam("ids", expanding=True, type_=NullType())
    query = select(verdict.c.image_id, verdict.c.fingerprint).where(
        verdict.c.model_id == model_id, verdict.c.image_id.in_(some_ids)
    )
    if only_ok:
        query = query.where(verdict.c.status.in_(list(map(str, ANSWERS))))
    found: dict[str, str] = {}
    with translated(engine), reading(engine) as connection:
        for some in chunks(list(uris), 500):
            rows = connection.execute(query, {"ids": some})
            found.update((uris[bytes(image_id)], fingerprint) for image_id, fingerprint in rows)
    return found


def list_verdicts(
    engine: Engine, wanted: Filter, *, order: str = "path", limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield verdicts as dictionaries with the keys ``COLUMNS``, streamed from the database.

    An index serves the order by score of whatever is asked for, and the order by path, but for the verdicts that are
    passed over on the way. Only the order by time sorts everything that the filter leaves.

    Args:
        engine: of the database.
        wanted: which ones.
        order: one of ``ORDERS``.
        limit: at most so many.
    """
    with translated(engine), reading(engine) as connection:
        for row in islice(_in_order(connection, wanted, order, limit), limit):
            yield dict(row._mapping)


def _in_order(connection: Connection, wanted: Filter, order: str, limit: int | None) -> Iterator[Row[Any]]:
    columns = [VIEW.c[name] for name in COLUMNS]
    for parts, is_by_score in _ways(Access(connection, wanted), order):
        sorting = _sorting(connection, order, is_by_score=is_by_score)
        with ExitStack() as stack:  # closed when the caller stops early
            found = [
                stack.enter_context(connection.execution_options(yield_per=1000).execute(query))
                for query in (select(*columns).where(*part.tests).order_by(*sorting).limit(limit) for part in parts)
            ]
            yield from merge(*found, key=ORDERS[order]) if len(found) > 1 else found[0] if found else ()


def _ways(access: Access, order: str) -> Iterator[tuple[list[Part], bool]]:
    """Yield what is to be merged, one after the other, and whether it comes from an index of scores in its order."""
    scored, failed = access.by_score(VIEW)
    if access.has_few_names(FEW):
        yield access.by_name(VIEW), False
    elif order in ("score", "-score"):
        yield scored, True
        yield failed, False
    elif order == "path" and not access.has_few_scores(FEW):
        yield access.by_name(VIEW), False
    else:
        yield scored + failed, False


def _sorting(connection: Connection, order: str, *, is_by_score: bool) -> list[ColumnElement[Any]]:
    score: ColumnElement[Any] = VIEW.c.p_real
    name = byte_order(VIEW.c.uri, connection.dialect)
    if order == "path":
        return [name]
    if order == "time":
        return [VIEW.c.scored_at, name]
    if not is_by_score:
        score = score + 0  # an index of scores would lead SQLite past all of them to those that have none
    direction = score.asc() if order == "score" else score.desc()
    return [direction, name] if is_by_score else [direction.nulls_last(), name]


def estimate_verdicts(engine: Engine, wanted: Filter) -> tuple[int, bool]:
    """Return how many verdicts there are, and whether that is an estimate because counting would take seconds."""
    with translated(engine), reading(engine) as connection:
        scope = Access(connection, wanted).scope()
        return scope.estimate(scope.tally()[()]), scope.is_sample
