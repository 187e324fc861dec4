"""What `db export` reads: a stream of plain rows of verdicts, and where they come from."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Result, Select, case, literal_column, select
from sqlalchemy.exc import DataError, DBAPIError, InternalError, NotSupportedError, ProgrammingError

from core.errors import UsageError
from db import schema
from db.engine import translated
from db.filters import VIEW, Filter, restrict
from db.ledger import reading
from db.sql import query_only

#: Rows that are fetched at a time.
FETCHED = 10_000

_SCORED = schema.verdict
_DIGEST = (
    select(_SCORED.c.digest)
    .where(_SCORED.c.image_id == VIEW.c.image_id, _SCORED.c.model_id == VIEW.c.model_id)
    .scalar_subquery()
    .label("digest")
)
#: What is exported: the view, and the digest of the bytes that were scored.
COLUMNS: tuple[ColumnElement[Any], ...] = (*VIEW.c, _DIGEST)
NAMES = tuple(str(column.key) for column in COLUMNS)

#: Values in the order of ``NAMES``: text, numbers, booleans, None, moments in UTC; digests as hexadecimal text.
Row = tuple[Any, ...]


@dataclass(slots=True)
class Tally:
    """What went into one file.

    Attributes:
        rows: how many.
        models: ids of the models that scored them.
        scans: numbers of the scans that they come from.
    """

    rows: int = 0
    models: set[str] = field(default_factory=set)
    scans: set[int] = field(default_factory=set)

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, and count them."""
        model, scan = NAMES.index("model_id"), NAMES.index("scan_id")
        for row in rows:
            self.rows += 1
            self.models.add(row[model])
            self.scans.add(row[scan])
            yield row


@dataclass(slots=True)
class Placed:
    """What became of the images of an export.

    Attributes:
        labels: how many it holds, by label, without ``(untrained)``.
        failed: how many it could not hold.
    """

    labels: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def total(self) -> int:
        """All images that were asked for."""
        return self.labels.total() + self.failed


class Selection:
    """The verdicts that pass a filter and a condition, as one consistent view of the database has them.

    Attributes:
        wanted: the filter.
        where: an SQL condition on the view ``labelled_verdict``; None does not restrict.
    """

    def __init__(self, connection: Connection, wanted: Filter, where: str | None) -> None:
        self.wanted = wanted
        self.where = where
        self._connection = connection
        # Of both there are few.
        self._models = {row.id: row._mapping for row in connection.execute(select(schema.model))}
        self._scans = {row.id: row._mapping for row in connection.execute(select(schema.scan))}

    def read(self, query: Select[Any]) -> Result[Any]:
        """Run a query of the view over what is selected; its rows are fetched little by little."""
        query = restrict(query, self.wanted, self._connection.engine)
        if self.where is not None:
            # On a line of its own, so that a comment at its end takes nothing else away.
            query = query.where(literal_column(f"({self.where}\n)"))
        return self._connection.execution_options(yield_per=FETCHED).execute(query)

    def rows(self) -> Iterator[Row]:
        """Yield what is selected, in no particular order."""
        with self.read(select(*COLUMNS)) as found:
            for row in found:
                yield tuple(map(_plain, row))

    def provenance(self, tally: Tally) -> dict[str, Any]:
        """Return where the rows of a file come from, fit for JSON."""
        return {
            "facesieve": version("facesieve"),
            "schema": schema.HEAD,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "filter": {name: value for name, value in asdict(self.wanted).items() if value not in (None, ())}
            | ({} if self.where is None else {"where": self.where}),
            "rows": tally.rows,
            "models": [_model_entry(self._models[model_id]) for model_id in sorted(tally.models)],
            "scans": [_scan_entry(self._scans[scan_id]) for scan_id in sorted(tally.scans)],
        }


@contextmanager
def open_selection(engine: Engine, wanted: Filter, where: str | None = None) -> Iterator[Selection]:
    """Open a selection on a connection that cannot write.

    Raises:
        UsageError: the condition is not one; also while rows are read, if it fails on one of them.
        DatabaseError: the database does not answer.
    """
    with translated(engine), reading(engine) as connection, query_only(connection), _blamed_on(where):
        if where is not None:
            _check_condition(connection, where)
        yield Selection(connection, wanted, where)


def _check_condition(connection: Connection, where: str) -> None:
    """Let the database tell whether a condition is one expression.

    The query itself has it in parentheses, which keeps out a semicolon but not `1) OR (1`. Here it stands without them,
    which that does not survive.
    """
    try:
        where.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"--where {where!r:.200} is not valid UTF-8") from error
    connection.execute(select(case((literal_column(f"{where}\n"), 1))).select_from(VIEW).limit(0)).close()


@contextmanager
def _blamed_on(where: str | None) -> Iterator[None]:
    """Turn what the database says of a condition into a UsageError; all else passes."""
    try:
        yield
    except DBAPIError as error:
        if where is None or not _is_mistake(error):
            raise
        reason = str(error.orig).strip().partition("\n")[0]
        raise UsageError(f"--where {where!r:.200} is no condition on labelled_verdict: {reason}") from error


def _is_mistake(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)  # the generic error, else a locked file would look like one
    kinds = (ProgrammingError, DataError, NotSupportedError, InternalError)
    return isinstance(error, kinds) or code == sqlite3.SQLITE_ERROR


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return value.hex()
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _model_entry(row: Any) -> dict[str, Any]:
    names = ("id", "name", "sha256", "architecture", "preprocess", "trained", "real_above", "generated_below")
    set_at = row["thresholds_set_at"]
    return {name: row[name] for name in names} | {"thresholds_set_at": set_at and set_at.isoformat()}


def _scan_entry(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"],
        "sources": json.loads(row["sources"]),
        "model": row["model_name"],
        "status": row["status"],
        "listed": row["listed"],
        "started_at": row["started_at"].astimezone(UTC).isoformat(),
    }
