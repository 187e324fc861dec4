"""The schema as a page for people; ``docs/generate.py`` writes it."""

from collections.abc import Iterator

from sqlalchemy import Column, Table
from sqlalchemy.engine import create_mock_engine

from db.schema import HEAD, labelled_verdict, metadata

_DIALECT = create_mock_engine("postgresql+psycopg://", lambda *_: None).dialect
_INTRODUCTION = f"""# Schema

What `facesieve` keeps in its database, at schema {HEAD}. On PostgreSQL the same texts are comments of the tables and
columns. Types are PostgreSQL's; SQLite keeps times as text in UTC and blobs as bytes. Read what you like with any tool;
write with the commands alone. Ready-made questions are in [queries.md](queries.md).

This page is made from `db/schema.py`: `make docs`.
"""


def describe() -> str:
    """Return the page as Markdown."""
    tables = [labelled_verdict, *sorted(metadata.tables.values(), key=lambda table: table.name)]
    return "\n".join([_INTRODUCTION, *(line for table in tables for line in _section(table))])


def _section(table: Table) -> Iterator[str]:
    kind = "view" if table is labelled_verdict else "table"
    yield f"## {table.name} ({kind})\n"
    yield f"{table.comment}\n"
    yield "| column | type | what it is |"
    yield "| --- | --- | --- |"
    for column in table.columns:
        yield f"| `{column.name}` | {_type(column)} | {_what(column)} |"
    yield ""
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        where = index.dialect_options["postgresql"]["where"]
        part = "" if where is None else f", where `{where}`"
        yield f"Index `{index.name}` on {', '.join(f'`{column.name}`' for column in index.columns)}{part}.\n"


def _type(column: Column[object]) -> str:
    nullable = "" if column.primary_key or not column.nullable or column.table is labelled_verdict else ", or null"
    return column.type.compile(_DIALECT).lower() + nullable


def _what(column: Column[object]) -> str:
    keys = ["primary key"] if column.primary_key else []
    keys += [f"-> `{key.target_fullname}`" for key in column.foreign_keys]
    return f"{column.comment} ({', '.join(keys)})" if keys else str(column.comment)
