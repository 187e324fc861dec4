"""Reads of verdicts: lists, counts and summaries. Labels come from the view, never from a column."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, and_, case, func, or_, select

from core.images import ImageRef
from core.verdicts import Status
from db import schema
from db.engine import translated
from db.ledger import chunks, reading

VIEW = schema.labelled_verdict
#: What a list shows, in this order.
COLUMNS = (
    "uri", "status", "p_real", "label", "reason", "model", "trained", "scan_id", "scored_at", "width", "height",
    "size_bytes",
)  # fmt: skip
LABELS = ("real", "generated", "unsure")
ORDERS = {
    "score": (VIEW.c.p_real.asc().nulls_last(), VIEW.c.uri),
    "-score": (VIEW.c.p_real.desc().nulls_last(), VIEW.c.uri),
    "path": (VIEW.c.uri,),
    "time": (VIEW.c.scored_at, VIEW.c.uri),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which verdicts to read; what is None does not restrict.

    Attributes:
        label: one of ``LABELS``.
        status: a ``Status``.
        min_score: lowest ``p_real``, included.
        max_score: highest ``p_real``, included.
        path: glob over the whole URI: ``*``, ``?``, ``[abc]``; case matters.
        under: only URIs that are one of these, or begin with one that ends in a slash; empty means any.
        scan_id: only verdicts whose latest score came from this scan.
        model: name of an artifact.
    """

    label: str | None = None
    status: Status | None = None
    min_score: float | None = None
    max_score: float | None = None
    path: str | None = None
    scan_id: int | None = None
    model: str | None = None
    under: tuple[str, ...] = ()


def find_model(engine: Engine, name: str) -> str | None:
    """Return the id of the model that was last registered under a name; None if there is none."""
    model = schema.model
    newest = select(model.c.id).where(model.c.name == name).order_by(model.c.registered_at.desc()).limit(1)
    with translated(engine), reading(engine) as connection:
        return connection.execute(newest).scalar()


def scored_fingerprints(
    engine: Engine, model_id: str, refs: Sequence[ImageRef], *, only_ok: bool = False
) -> dict[bytes, str]:
    """Return what is already scored by a model: the fingerprint of the scored content, by image id.

    Args:
        engine: of the database.
        model_id: whose verdicts.
        refs: which images.
        only_ok: leave out failures, so that they are tried again.
    """
    verdict = schema.verdict
    found: dict[bytes, str] = {}
    with translated(engine), reading(engine) as connection:
        for some in chunks([ref.id for ref in refs], 500):
            rows = connection.execute(
                select(verdict.c.image_id, verdict.c.fingerprint).where(
                    verdict.c.model_id == model_id,
                    verdict.c.image_id.in_(some),
                    *([verdict.c.status == str(Status.OK)] if only_ok else []),
                )
            )
            found.update((bytes(image_id), fingerprint) for image_id, fingerprint in rows)
    return found


def list_verdicts(
    engine: Engine, wanted: Filter, *, order: str = "path", limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield verdicts as dictionaries with the keys ``COLUMNS``, streamed from the database.

    Args:
        engine: of the database.
        wanted: which ones.
        order: one of ``ORDERS``.
        limit: at most so many.
    """
    query = _restrict(select(*(VIEW.c[name] for name in COLUMNS)), wanted, engine).order_by(*ORDERS[order]).limit(limit)
    with (
        translated(engine),
        reading(engine) as connection,
        connection.execution_options(yield_per=1000).execute(query) as rows,  # closed when the caller stops early
    ):
        for row in rows:
            yield dict(row._mapping)


def count_verdicts(engine: Engine, wanted: Filter) -> int:
    """Return how many verdicts there are."""
    with translated(engine), reading(engine) as connection:
        return int(connection.execute(_restrict(select(func.count()).select_from(VIEW), wanted, engine)).scalar_one())


def count_labels(engine: Engine, wanted: Filter) -> dict[str, int]:
    """Return how many images have each label, the most frequent first; failures have none."""
    query = _restrict(select(VIEW.c.label, func.count().label("n")), wanted, engine).where(VIEW.c.label.is_not(None))
    with translated(engine), reading(engine) as connection:
        rows = connection.execute(query.group_by(VIEW.c.label).order_by(func.count().desc()))
        return {row.label: row.n for row in rows}


def count_statuses(engine: Engine, wanted: Filter) -> dict[str, int]:
    """Return how many images have each status, the most frequent first."""
    query = _restrict(select(VIEW.c.status, func.count().label("n")), wanted, engine)
    with translated(engine), reading(engine) as connection:
        rows = connection.execute(query.group_by(VIEW.c.status).order_by(func.count().desc()))
        return {row.status: row.n for row in rows}


def score_histogram(engine: Engine, wanted: Filter, *, bins: int = 10) -> list[int]:
    """Return how many scores lie in each of so many equal parts of [0, 1]; 1 belongs to the last."""
    last = case((VIEW.c.p_real >= 1, bins - 1), else_=func.floor(VIEW.c.p_real * bins))
    part = last.label("part")
    query = _restrict(select(part, func.count()), wanted, engine).where(VIEW.c.p_real.is_not(None)).group_by(part)
    counts = [0] * bins
    with translated(engine), reading(engine) as connection:
        for index, number in connection.execute(query):
            counts[int(index)] = number
    return counts


def list_scans(engine: Engine, *, limit: int = 20) -> list[int]:
    """Return the numbers of the newest scans, newest first."""
    with translated(engine), reading(engine) as connection:
        return list(
            connection.execute(select(schema.scan.c.id).order_by(schema.scan.c.id.desc()).limit(limit)).scalars()
        )


def _restrict(query: Select[Any], wanted: Filter, engine: Engine) -> Select[Any]:
    tests: list[ColumnElement[bool]] = []
    if wanted.label is not None:
        tests.append(or_(VIEW.c.label == wanted.label, VIEW.c.label == f"{wanted.label} (untrained)"))
    if wanted.status is not None:
        tests.append(VIEW.c.status == str(wanted.status))
    if wanted.min_score is not None:
        tests.append(VIEW.c.p_real >= wanted.min_score)
    if wanted.max_score is not None:
        tests.append(VIEW.c.p_real <= wanted.max_score)
    if wanted.path is not None:
        tests.append(VIEW.c.uri.regexp_match(_glob_to_regex(wanted.path)))
    if wanted.under:
        tests.append(or_(*(_begins_with(engine, prefix) for prefix in wanted.under)))
    if wanted.scan_id is not None:
        tests.append(VIEW.c.scan_id == wanted.scan_id)
    if wanted.model is not None:
        tests.append(VIEW.c.model == wanted.model)
    return query.where(*tests)


def _begins_with(engine: Engine, prefix: str) -> ColumnElement[bool]:
    """Compare by bytes, in a form that the index on the URI serves on either database."""
    if not prefix.endswith("/"):
        return VIEW.c.uri == prefix
    beyond = prefix[:-1] + chr(ord("/") + 1)
    if engine.dialect.name == "sqlite":
        return and_(VIEW.c.uri >= prefix, VIEW.c.uri < beyond)
    return and_(VIEW.c.uri.op("~>=~", is_comparison=True)(prefix), VIEW.c.uri.op("~<~", is_comparison=True)(beyond))


def _glob_to_regex(glob: str) -> str:
    """Write a glob as a regular expression that means the same to PostgreSQL and to Python, which SQLite asks."""
    parts, index = [], 0
    while index < len(glob):
        char = glob[index]
        is_negated = glob.startswith("[!", index)
        end = glob.find("]", index + 2 + is_negated) if char == "[" else -1
        if end > 0:
            parts.append(_set_to_regex(glob[index + 1 + is_negated : end], is_negated))
            index = end
        else:
            parts.append({"*": ".*", "?": "."}.get(char, re.escape(char)))
        index += 1
    return f"(?s)\\A{''.join(parts)}\\Z"


def _set_to_regex(inside: str, is_negated: bool) -> str:
    ranges = re.findall(r"(.)-(.)|(.)", inside, re.DOTALL)
    parts = [
        f"{re.escape(first)}-{re.escape(last)}" if first else re.escape(single)
        for first, last, single in ranges
        if single or first <= last
    ]
    if not parts:
        return "." if is_negated else "(?!)"
    return f"[{'^' * is_negated}{''.join(parts)}]"
