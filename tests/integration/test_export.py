"""Exported verdicts: what other programs read of them, where they say that they come from, and how they are read."""

import gzip
import io
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas
import polars
import pytest
from pyarrow import parquet
from sqlalchemy import Engine, text

from core.images import ImageRef
from core.settings import load_settings
from core.verdicts import Outcome, Status
from db import schema
from db.engine import open_engine
from db.export import NAMES, open_selection
from db.export_files import Kind, write_file
from db.filters import Filter
from tests.integration.builders import Books, manifest, refs, scored
from tests.integration.commands import HOSTILE

URIS = (
    *(f"/faces/{name}" for name in HOSTILE),
    '/faces/"quoted", and more.jpg',
    "/faces/<script>alert(1)</script>.jpg",
    "/faces/été 画像 \U0001f600.jpg",
    "/faces/line\u2028separator\x85.jpg",
    "/faces/=1+1.jpg",
    "file:///faces/caf%E9.jpg",
    f"/{'long/' * 799}.jpg",
)
SCORES = [round(0.05 + number * 0.9 / len(URIS), 6) for number in range(len(URIS))]


@pytest.fixture
def hostile(books: Books) -> Books:
    """A scan of images with names that mean harm, and of one that could not be read."""
    images = [ImageRef(uri, "1-1", 3_000_000_000) for uri in URIS]
    outcomes = [scored(ref, score) for ref, score in zip(images, SCORES, strict=True)]
    books.save([*outcomes, Outcome(refs(1)[0], Status.TRUNCATED, reason='it says "end",\r\ntoo early')])
    return books


@pytest.fixture
def make(engine: Engine, tmp_path: Path) -> Callable[..., Path]:
    """Write an export below the test's folder."""

    def export(name: str, wanted: Filter | None = None, where: str | None = None) -> Path:
        target = tmp_path / name
        with open_selection(engine, wanted or Filter(), where) as selection:
            write_file(selection, selection.rows(), target, Kind.of(name, None), overwrite=False)
        return target

    return export


def test_duckdb_reads_parquet_with_types_names_and_provenance(hostile: Books, make: Callable[..., Path]) -> None:
    path = make("out.parquet")
    with duckdb.connect() as connection:
        found = connection.execute("SELECT uri, p_real FROM read_parquet(?) WHERE p_real IS NOT NULL", [str(path)])
        assert dict(found.fetchall()) == dict(zip(URIS, SCORES, strict=True))
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        types = {row[0]: row[1] for row in described}
        kept = connection.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'facesieve'", [str(path)])
        assert json.loads(kept.fetchone()[0])["rows"] == len(URIS) + 1  # type: ignore[index]
    assert tuple(types) == NAMES
    assert types.items() >= {
        "p_real": "DOUBLE", "trained": "BOOLEAN", "scored_at": "TIMESTAMP WITH TIME ZONE", "digest": "VARCHAR",
        "size_bytes": "BIGINT", "width": "INTEGER", "scan_id": "INTEGER", "image_id": "VARCHAR", "label": "VARCHAR",
    }.items()  # fmt: skip


def test_pandas_reads_parquet_with_types_and_names(hostile: Books, make: Callable[..., Path]) -> None:
    frame = pandas.read_parquet(make("out.parquet")).sort_values("p_real")
    assert list(frame["uri"])[:-1] == list(URIS)
    assert (frame["p_real"].dtype, frame["trained"].dtype) == (float, bool)
    assert str(frame["scored_at"].dtype) == "datetime64[us, UTC]"
    assert (frame["scored_at"] > datetime.now(UTC) - timedelta(minutes=10)).all()
    assert math.isnan(frame["p_real"].iloc[-1])
    assert set(frame["digest"][:-1]) == {"01" * 16}


def test_polars_reads_parquet_with_types_and_names(hostile: Books, make: Callable[..., Path]) -> None:
    frame = polars.read_parquet(make("out.parquet")).sort("p_real", nulls_last=True)
    assert frame["uri"].to_list()[:-1] == list(URIS)
    assert frame.schema["scored_at"] == polars.Datetime("us", "UTC")
    assert frame.schema["p_real"] == polars.Float64
    assert frame["image_id"].to_list()[:-1] == [ImageRef(uri, "", 0).id.hex() for uri in URIS]
    assert frame["reason"].to_list()[-1] == 'it says "end",\r\ntoo early'


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_duckdb_pandas_and_polars_read_csv(name: str, hostile: Books, make: Callable[..., Path]) -> None:
    path = make(name)
    with duckdb.connect() as connection:
        query = "SELECT uri, p_real, trained, scored_at FROM read_csv(?, header = true, new_line = '\\r\\n')"
        rows = connection.execute(query, [str(path)]).fetchall()
    assert {row[0]: row[1] for row in rows if row[1] is not None} == dict(zip(URIS, SCORES, strict=True))
    assert all(row[2] is True and row[3].utcoffset() is not None for row in rows)
    frame = pandas.read_csv(path, parse_dates=["scored_at"], keep_default_na=False, na_values={"p_real": [""]})
    assert set(frame["uri"]) == {*URIS, refs(1)[0].uri}
    assert (str(frame["scored_at"].dtype), frame["trained"].dtype) == ("datetime64[us, UTC]", bool)
    table = polars.read_csv(path, try_parse_dates=True)
    assert set(table["uri"]) == {*URIS, refs(1)[0].uri}
    assert (table.schema["trained"], table.schema["p_real"]) == (polars.Boolean, polars.Float64)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_duckdb_pandas_and_polars_read_json_lines(name: str, hostile: Books, make: Callable[..., Path]) -> None:
    path = make(name)
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT uri, p_real, trained FROM read_json(?)", [str(path)]).fetchall()
    assert {row[0]: row[1] for row in rows if row[1] is not None} == dict(zip(URIS, SCORES, strict=True))
    frame = pandas.read_json(path, lines=True, dtype=False)
    assert set(frame["uri"]) == {*URIS, refs(1)[0].uri}
    assert frame["trained"].dtype == bool
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    table = polars.read_ndjson(io.BytesIO(content))
    assert set(table["uri"]) == {*URIS, refs(1)[0].uri}
    assert table.schema["p_real"] == polars.Float64


def test_the_provenance_names_program_filter_models_and_scans_of_the_rows_alone(
    new_books: Callable[..., Books], engine: Engine, make: Callable[..., Path]
) -> None:
    one, two = new_books("one", generated_below=0.2, real_above=0.7), new_books("two")
    one.save([scored(ref) for ref in refs(3)])
    two.save([scored(ref) for ref in refs(5)])
    wanted = Filter(label="real", model="one", min_score=0.0)
    path = make("out.parquet", wanted, "size_bytes > 1")
    found = json.loads(parquet.read_schema(path).metadata[b"facesieve"])
    assert found["schema"] == schema.HEAD
    assert found["facesieve"]
    assert datetime.fromisoformat(found["exported_at"]).utcoffset() == timedelta(0)
    assert found["filter"] == {"label": "real", "model": "one", "min_score": 0.0, "where": "size_bytes > 1"}
    assert found["rows"] == 3
    (model,) = found["models"]
    assert model.items() >= {
        "id": one.model.id, "name": "one", "sha256": one.model.sha256, "generated_below": 0.2, "real_above": 0.7
    }.items()  # fmt: skip
    assert [(scan["id"], scan["sources"]) for scan in found["scans"]] == [(one.scan_id, ["/faces"])]
    make("out.csv", wanted, "size_bytes > 1")
    beside = json.loads((path.parent / "out.csv.provenance.json").read_text())
    assert beside | {"exported_at": ""} == found | {"exported_at": ""}


def test_an_export_of_nothing_is_a_file_with_columns(engine: Engine, make: Callable[..., Path]) -> None:
    assert pandas.read_parquet(make("out.parquet")).columns.tolist() == list(NAMES)
    assert make("out.csv").read_text().strip().split(",") == list(NAMES)
    assert make("out.jsonl").read_text() == ""


def test_an_export_sees_one_state_of_the_database(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(3)])
    with open_selection(engine, Filter()) as selection:
        books.save([scored(ref) for ref in refs(5)])
        assert len(list(selection.rows())) == 3


def test_a_postgresql_server_keeps_the_rows_until_they_are_asked_for(postgresql_url: str) -> None:
    engine = open_engine(load_settings(database_url=postgresql_url))
    model = manifest()
    books = Books(engine, model)
    books.store.register_model(model)
    books.save([scored(ref) for ref in refs(3)])
    with open_selection(engine, Filter()) as selection:
        rows = selection.rows()
        next(rows)
        cursors = selection._connection.execute(text("SELECT statement FROM pg_cursors")).scalars().all()
        assert any("AS digest" in statement for statement in cursors)
        rows.close()
    engine.dispose()
