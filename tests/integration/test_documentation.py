"""The documented schema is the real one, and the example queries answer."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, Table, insert, inspect, text

from core.settings import load_settings
from core.verdicts import Status
from db import schema
from db.describe import describe
from db.engine import make_engine, open_engine
from tests.integration.builders import Books, failed, manifest, refs, scored, write

DOCS = Path(__file__).parents[2] / "docs"
QUERIES = re.findall(r"([^\n]+):\n\n```sql\n(.*?)```", (DOCS / "queries.md").read_text(), re.DOTALL)
TABLES = (*schema.metadata.sorted_tables, schema.labelled_verdict)


@pytest.fixture
def answered(new_books: Callable[..., Books], engine: Engine) -> Engine:
    """A database in which every example query has something to find."""
    for name, score in (("one", 0.1), ("two", 0.9)):
        small = [replace(scored(ref, score), width=64, height=64) for ref in refs(4)]
        new_books(name).save([*small, failed(refs(5)[4], Status.TRUNCATED)])
    small = {"x": 0, "y": 0, "width": 50, "height": 60, "confidence": 0.9, "p_real": 0.1}
    faces = [{"image_id": refs(1)[0].id, "model_id": manifest("one").id, "number": n, **small} for n in (1, 2)]
    write(engine, insert(schema.face).values(faces))
    said = {"label": "real", "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
    write(engine, insert(schema.review).values([{"image_id": ref.id, **said} for ref in refs(2)]))
    return engine


@pytest.mark.parametrize(("question", "query"), QUERIES, ids=[question for question, _ in QUERIES])
def test_an_example_query_finds_something(question: str, query: str, answered: Engine) -> None:
    with answered.connect() as connection:
        assert connection.execute(text(query)).all(), question


def test_there_are_example_queries() -> None:
    assert len(QUERIES) >= 8


def test_the_page_of_the_schema_is_up_to_date() -> None:
    assert (DOCS / "schema.md").read_text() == describe(), "run `make docs`"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_and_column_is_described(table: Table) -> None:
    assert table.comment
    assert [column.name for column in table.columns if not column.comment] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_postgresql_holds_the_descriptions(table: Table, postgresql_url: str) -> None:
    engine = make_engine(load_settings(database_url=postgresql_url))
    found = {column["name"]: column["comment"] for column in inspect(engine).get_columns(table.name)}
    assert found == {column.name: column.comment for column in table.columns}
    with engine.connect() as connection:
        comment = connection.execute(text("SELECT obj_description(CAST(:name AS regclass))"), {"name": table.name})
        assert comment.scalar() == table.comment
    engine.dispose()


def test_plain_sqlite_opens_the_database_without_anything_of_ours(tmp_path: Path) -> None:
    engine = open_engine(load_settings(database_url=f"sqlite:///{tmp_path / 'faces.db'}"))
    model = manifest()
    books = Books(engine, model)
    books.store.register_model(model)
    books.save([scored(ref, 0.1) for ref in refs(3)])
    engine.dispose()
    with closing(sqlite3.connect(f"file:{tmp_path / 'faces.db'}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT uri, label FROM labelled_verdict ORDER BY uri").fetchall()
    assert found == [(ref.uri, "generated") for ref in refs(3)]
