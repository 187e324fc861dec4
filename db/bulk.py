"""Many rows in one statement: inserted, or written over those with the same key.

A job's verdicts are most of what the database takes. SQLAlchemy's executemany handles each value of each row by itself,
and psycopg sends each row by itself: that takes longer than the writing. Here rows reach SQLite as they are, and
PostgreSQL as one JSON document.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import JSON, Column, Connection, LargeBinary, Table, Text, bindparam, cast, column, func, select
from sqlalchemy.dialects import postgresql, sqlite

_SQLITE = sqlite.dialect(paramstyle="named")
_ROWS = "given_rows"


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Any] | None = None,
    *,
    keep: Sequence[str] = (),
) -> None:
    """Insert rows, or write them over those with the same key.

    Args:
        connection: in whose transaction.
        table: with a primary key that the rows have.
        rows: values by column, the same columns in each, no key twice: numbers, texts, bytes or None. At least one.
        shared: values of further columns, the same for all rows, of any type.
        keep: columns that are not overwritten by null.
    """
    shared = shared or {}
    shape = table, tuple(rows[0]), tuple(shared), tuple(keep)
    if connection.dialect.name == "postgresql":
        connection.execute(_postgresql_insert(*shape), {_ROWS: json.dumps(rows, default=bytes.hex), **shared})
    else:
        ready = {name: _as_sqlite_has_it(table.c[name], value) for name, value in shared.items()}
        connection.exec_driver_sql(_sqlite_insert(*shape), [{**row, **ready} for row in rows])


@cache
def _postgresql_insert(table: Table, own: tuple[str, ...], shared: tuple[str, ...], keep: tuple[str, ...]) -> Any:
    is_bytes = {name: isinstance(table.c[name].type, LargeBinary) for name in own}
    columns = (column(name, Text() if is_bytes[name] else table.c[name].type) for name in own)
    rows = func.json_to_recordset(cast(bindparam(_ROWS, type_=Text), JSON))
    given = rows.table_valued(*columns, name="given").render_derived(with_types=True)
    values = [func.decode(given.c[name], "hex") if is_bytes[name] else given.c[name] for name in own]
    values += [bindparam(name, type_=table.c[name].type) for name in shared]
    return _or_update(postgresql.insert(table).from_select([*own, *shared], select(*values)), [*own, *shared], keep)


@cache
def _sqlite_insert(table: Table, own: tuple[str, ...], shared: tuple[str, ...], keep: tuple[str, ...]) -> str:
    names = [*own, *shared]
    statement = _or_update(sqlite.insert(table).values({name: bindparam(name) for name in names}), names, keep)
    return str(statement.compile(dialect=_SQLITE))


def _or_update(statement: Any, names: Sequence[str], keep: Sequence[str]) -> Any:
    table = statement.table
    keys = [column.name for column in table.primary_key]
    changed = {
        name: func.coalesce(statement.excluded[name], table.c[name]) if name in keep else statement.excluded[name]
        for name in names
        if name not in keys
    }
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _as_sqlite_has_it(column: Column[Any], value: Any) -> Any:
    convert = column.type.dialect_impl(_SQLITE).bind_processor(_SQLITE)
    return convert(value) if convert else value
