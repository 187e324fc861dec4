"""A query of the user's own, which can read and nothing else."""

import sqlite3
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from core.errors import UsageError
from db.engine import translated
from db.ledger import reading

_READS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
#: How many instructions of SQLite's machine run between two looks at the clock: well below a millisecond.
_INSTRUCTIONS = 10_000


def run_query(engine: Engine, sql: str, *, timeout: float | None = None) -> Generator[Sequence[Any], None, None]:
    """Yield the names of the columns, then the rows, streamed from the database.

    SQLite refuses whatever is no reading when it compiles the statement. PostgreSQL declares a cursor for it in a
    read-only transaction, which takes one query and no command.

    Args:
        engine: of the database.
        sql: one query.
        timeout: seconds after which a step of the database is stopped; None means never.

    Raises:
        UsageError: the query is wrong, no query, or took too long.
    """
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise UsageError("the query is not valid UTF-8") from None
    if not sql.strip() or "\0" in sql:
        raise UsageError("the query is empty or holds a NUL")
    with translated(engine), reading(engine) as connection:
        confine = _confine_sqlite if engine.dialect.name == "sqlite" else _confine_postgresql
        with confine(connection, timeout):
            yield from _stream(connection, sql, timeout)


def _stream(connection: Connection, sql: str, timeout: float | None) -> Iterator[Sequence[Any]]:
    # no_parameters: a percent sign or a question mark is part of the query.
    options = {"no_parameters": True, "stream_results": True, "max_row_buffer": 1000}
    try:
        with connection.exec_driver_sql(sql, execution_options=options) as result:
            if not result.returns_rows:
                raise UsageError("only a query that returns rows can be run here")
            yield tuple(result.keys())
            for row in result:
                yield tuple(row)
    except (DBAPIError, sqlite3.Warning) as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise  # not the query's fault
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        if timeout is not None and ("interrupted" in reason or "statement timeout" in reason):
            raise UsageError(f"the query was stopped after {timeout:g} s: see --timeout") from error
        raise UsageError(f"the query failed: {reason} (it can only read)") from error


@contextmanager
def query_only(connection: Connection) -> Iterator[None]:
    """Let SQLite refuse whatever writes; on PostgreSQL the transaction of ``reading`` does."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA query_only = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA query_only = OFF")  # the connection goes back to the pool


@contextmanager
def _confine_sqlite(connection: Connection, timeout: float | None) -> Iterator[None]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    with query_only(connection):
        driver.set_authorizer(_authorize)
        if timeout is not None:
            deadline = time.monotonic() + timeout
            driver.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)
            driver.set_authorizer(None)


def _authorize(action: int, _first: str | None, second: str | None, *_where: str | None) -> int:
    is_reading = action in _READS and not (action == sqlite3.SQLITE_FUNCTION and second == "load_extension")
    return sqlite3.SQLITE_OK if is_reading else sqlite3.SQLITE_DENY


@contextmanager
def _confine_postgresql(connection: Connection, timeout: float | None) -> Iterator[None]:
    milliseconds = 0 if timeout is None else max(1, round(timeout * 1000))
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
    yield
