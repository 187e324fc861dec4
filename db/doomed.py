"""The verdicts that are about to be pruned, put down in a temporary table: on disk, for there may be millions."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    func,
    insert,
    select,
)

from core.errors import ImageError
from core.uris import split_member, uri_to_path
from core.verdicts import ANSWERS
from db import schema
from db.ledger import chunks

Report = Callable[[int], None]

BATCH = 5000

DOOMED = Table(
    "doomed",
    MetaData(),
    Column("image_id", LargeBinary(16), primary_key=True),
    Column("model_id", String(32), primary_key=True),
    Column("job_id", String(32), nullable=False),
    prefixes=["TEMPORARY"],
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which verdicts to prune: those for which all of this holds.

    Attributes:
        scan_id: the latest scan that scored the image; the scan itself is forgotten, too. Stands alone.
        model_id: the model.
        before: it was scored earlier.
        failed: whether only failures.
        missing: whether only images of this machine whose file is gone.
    """

    scan_id: int | None = None
    model_id: str | None = None
    before: datetime | None = None
    failed: bool = False
    missing: bool = False


@dataclass(slots=True)
class Gathered:
    """What is in the table, for people.

    Attributes:
        verdicts: how many.
        images: of how many images.
        lost: how many files are gone with their folder: a disk may not be mounted.
        lost_folder: one such folder.
    """

    verdicts: int = 0
    images: int = 0
    lost: int = 0
    lost_folder: str | None = None


def gather(connection: Connection, wanted: Wanted, report: Report) -> Gathered:
    """Make the table and fill it.

    Args:
        connection: holds the table until it is closed; no transaction is open.
        wanted: which verdicts.
        report: with ``missing``, told how many files were looked for.
    """
    # SQLite keeps temporary tables in a file of their own: writing to them takes no lock that workers wait for.
    connection.execution_options(sqlite_begin="DEFERRED")
    gathered = Gathered()
    with connection.begin():
        DOOMED.create(connection)
    if wanted.missing:
        _gather_missing(connection, wanted, gathered, report)
    else:
        with connection.begin():
            _add(connection, *_tests(wanted))
    with connection.begin():
        counts = select(func.count(), func.count(DOOMED.c.image_id.distinct())).select_from(DOOMED)
        gathered.verdicts, gathered.images = connection.execute(counts).one()
    connection.execution_options(sqlite_begin="IMMEDIATE")
    return gathered


def is_doomed() -> ColumnElement[bool]:
    """Return the test whether a verdict is in the table. One that a worker has replaced since is another job's."""
    return and_(*(schema.verdict.c[column.name] == column for column in DOOMED.columns))


def _add(connection: Connection, *tests: ColumnElement[bool]) -> None:
    names = [column.name for column in DOOMED.columns]
    chosen = select(*(schema.verdict.c[name] for name in names)).where(*tests)
    connection.execute(insert(DOOMED).from_select(names, chosen))


def _gather_missing(connection: Connection, wanted: Wanted, gathered: Gathered, report: Report) -> None:
    image, last, seen = schema.image, b"", 0
    query = select(image.c.id, image.c.uri).order_by(image.c.id).limit(BATCH)
    while True:
        with connection.begin():
            rows = connection.execute(query.where(image.c.id > last)).all()
        if not rows:
            return
        gone = [row.id for row in rows if _is_gone(row.uri, gathered)]
        with connection.begin():
            for some in chunks(gone, 500):
                _add(connection, *_tests(wanted), schema.verdict.c.image_id.in_(some))
        last, seen = rows[-1].id, seen + len(rows)
        report(seen)


def _is_gone(uri: str, gathered: Gathered) -> bool:
    try:
        path = Path(uri_to_path(split_member(uri)[0]))  # of the archive: looking into each would take hours
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if lost := _lost_folder(path.parent):
            gathered.lost += 1
            gathered.lost_folder = lost
        return True
    except (ImageError, OSError):  # not of this machine, or nobody can tell now
        return False
    return False


@lru_cache(maxsize=10_000)
def _lost_folder(folder: Path) -> str | None:
    """Return the topmost of a folder and its parents that does not exist; None if the folder does."""
    return None if folder.exists() else _lost_folder(folder.parent) or str(folder)


def _tests(wanted: Wanted) -> list[ColumnElement[bool]]:
    verdict = schema.verdict
    tests: list[ColumnElement[bool]] = []
    if wanted.scan_id is not None:
        tests.append(verdict.c.scan_id == wanted.scan_id)
    if wanted.model_id is not None:
        tests.append(verdict.c.model_id == wanted.model_id)
    if wanted.before is not None:
        tests.append(verdict.c.scored_at < wanted.before)
    if wanted.failed:
        tests.append(verdict.c.status.not_in(list(map(str, ANSWERS))))
    return tests
