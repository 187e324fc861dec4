"""One image by whatever name, and queries of the user's own."""

import csv
import io
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, text, update

from core.images import ImageRef
from core.uris import path_to_uri
from core.verdicts import Outcome, Status
from db import schema
from db.sql import run_query
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE
from tests.integration.invoking import Db

NAMES = (
    *HOSTILE,
    '"; <script>alert(1)</script>',
    "été 画像.jpg",
    f"{'long/' * 780}x.jpg",
    os.fsdecode(b"\xff\xfe.jpg"),
)
FORBIDDEN = (
    "DELETE FROM verdict",
    "DELETE FROM verdict RETURNING reason",
    "UPDATE model SET real_above = 0 RETURNING id",
    "INSERT INTO review (image_id, label) SELECT image_id, 'real' FROM verdict",
    "WITH gone AS (DELETE FROM verdict RETURNING reason) SELECT * FROM gone",
    "SELECT 1; DELETE FROM verdict",
    "SELECT 1) TO STDOUT; COMMIT; DELETE FROM verdict; SELECT (1",
    "COMMIT; DELETE FROM verdict",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "SET TRANSACTION READ WRITE",
    "DROP VIEW labelled_verdict",
    "DROP TABLE review",
    "CREATE TABLE mine AS SELECT 1 AS one",
    "CREATE TEMPORARY TABLE mine (one integer)",
    "ATTACH 'other.db' AS other",
    "DETACH main",
    "VACUUM INTO 'copy.db'",
    "VACUUM",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "SELECT load_extension('x')",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT nextval('scan_id_seq')",
    "COPY verdict TO PROGRAM 'cat'",
    "SELECT * FROM nowhere",
    "SELEC 1",
    "",
    "/* nothing */",
)


@pytest.fixture
def db(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Db:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Db(engine, monkeypatch)


def content_of(engine: Engine) -> list[object]:
    """Return all rows that a query could have changed."""
    with engine.connect() as connection:
        tables = (schema.model, schema.image, schema.verdict, schema.review)
        return [connection.execute(select(table).order_by(*table.primary_key)).all() for table in tables]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_an_image_is_found_by_its_path_its_uri_and_its_id(name: str, books: Books, db: Db, tmp_path: Path) -> None:
    path = os.path.normpath(f"{tmp_path}/{name}")
    image = ImageRef(path_to_uri(path), "1-1", 1)
    books.save([scored(ref) for ref in (image, *refs(3))])
    for text_given in (name, path, f"./x/../{name}", image.uri, image.id.hex(), image.id.hex()[:9]):
        assert db.read("show", "--", text_given)["uri"] == image.uri
        shown = db.ok("show", "--", text_given)
        assert all(char.isprintable() or char == "\n" for char in shown)


def test_an_image_is_shown_with_all_that_is_known_of_it(
    books: Books, new_books: Callable[..., Books], engine: Engine, db: Db
) -> None:
    (image,) = refs(1)
    outcome = Outcome(image, Status.OK, 0.25, "", bytes(range(16)), 640, 480, phash=-2)
    job = books.save([outcome])
    other = new_books("other", trained=False)
    other.save([failed(image)])
    moment = datetime(2025, 1, 31, 12, 30, tzinfo=UTC)
    for label, note in (("unclear", ""), ("real", "[red]my\nown[/red]")):
        values = {"label": label, "note": note, "reviewer": "me", "reviewed_at": moment}
        write(engine, insert(schema.review).values(image_id=image.id, **values))
    found = db.read("show", image.uri)
    assert (found["width"], found["height"], found["size_bytes"]) == (640, 480, 10)
    assert found["phash"] == "fffffffffffffffe"
    failure, verdict = found["verdicts"]
    assert (failure["status"], failure["label"], failure["reason"]) == ("truncated", None, "it is truncated")
    assert (verdict["label"], verdict["p_real"], verdict["digest"]) == ("generated", 0.25, bytes(range(16)).hex())
    assert (verdict["scan_id"], verdict["job_id"], verdict["fingerprint"]) == (books.scan_id, job.id, "10-1")
    assert (verdict["worker"], verdict["engine"], verdict["precision"]) == ("worker@host", "tensorflow", "float32")
    assert [review["label"] for review in found["reviews"]] == ["real", "unclear"]
    shown = db.ok("show", image.uri)
    assert "review        real, by me at 2025-01-31 12:30:00 UTC: [red]my\\nown[/red]\n" in shown
    assert "verdict       generated, p_real 0.250000\n" in shown
    assert "verdict       truncated: it is truncated\n" in shown


def test_images_with_the_same_content_are_named(books: Books, db: Db) -> None:
    digests, images = (b"a" * 16, b"b" * 16), refs(6)
    scores = (0.25, 0.25 + 1e-8, 0.25, 0.9)
    outcomes = [
        Outcome(image, Status.OK, score, "", digests[image is images[2]], 1, 1)
        for image, score in zip(images, scores, strict=False)
    ]
    outcomes += [Outcome(image, Status.TRUNCATED, None, "early", b"c" * 16) for image in images[4:]]
    books.save(outcomes)
    assert db.read("show", images[0].uri)["same_content"] == [images[1].uri]
    assert db.read("show", images[2].uri)["same_content"] == []
    assert db.read("show", images[4].uri)["same_content"] == [images[5].uri]
    assert f"same content  {images[1].uri}\n" in db.ok("show", images[0].uri)


@pytest.mark.parametrize("name", ["gone.jpg", "/faces", "s3://bucket/x", "abcdef01", "[red]x\n", ""])
def test_an_image_that_is_not_there_is_named(name: str, books: Books, db: Db) -> None:
    books.save([scored(ref) for ref in refs(2)])
    assert db.error(2, "show", name).startswith("the database has no image ")


def test_a_uri_that_is_none_is_refused(books: Books, db: Db) -> None:
    assert "is no URI" in db.error(2, "show", os.fsdecode(b"file:///\xff.jpg"))


def test_the_beginning_of_two_ids_asks_for_more(books: Books, engine: Engine, db: Db) -> None:
    rows = [{"id": bytes.fromhex(f"abcdef01{n:024}"), "uri": f"/{n}", "size_bytes": 1} for n in range(2)]
    write(engine, insert(schema.image).values(rows))
    assert "several image ids" in db.error(2, "show", "abcdef01")
    assert db.read("show", rows[1]["id"].hex())["uri"] == "/1"


@pytest.mark.parametrize("query", FORBIDDEN)
def test_a_query_that_does_more_than_read_is_refused_and_changes_nothing(
    query: str, books: Books, engine: Engine, db: Db, tmp_path: Path
) -> None:
    books.save([scored(ref) for ref in refs(3)])
    before, files = content_of(engine), sorted(tmp_path.iterdir())
    line = db.error(2, "sql", query)
    assert "\n" not in line
    assert content_of(engine) == before
    assert sorted(tmp_path.iterdir()) == files
    write(engine, update(schema.model).values(real_above=0.9))  # the connection can write again


def test_a_query_is_printed_as_table_as_json_and_as_csv(books: Books, db: Db) -> None:
    books.save([scored(ref, 0.25) for ref in refs(2)])
    query = (
        "SELECT uri, p_real, reason AS why, id, CAST(NULL AS integer) AS none FROM image JOIN verdict ON id = image_id"
    )
    first = refs(1)[0]
    row = {"uri": first.uri, "p_real": 0.25, "why": "", "id": first.id.hex(), "none": None}
    query += f" WHERE uri LIKE '%{first.uri[-9:]}' AND uri <> '?:%s'"
    assert json.loads(db.ok("sql", query, "--json")) == row
    assert db.ok("sql", query).splitlines()[1].split() == [first.uri, "0.25", first.id.hex(), "-"]
    assert list(csv.DictReader(io.StringIO(db.ok("sql", query, "--csv")))) == [
        {name: "" if value is None else str(value) for name, value in row.items()}
    ]


def test_numbers_are_numbers_in_json_on_every_database(books: Books, db: Db) -> None:
    books.save([scored(ref, 0.25) for ref in refs(4)])
    found = db.read("sql", "SELECT sum(size_bytes) AS bytes, avg(p_real) AS mean FROM labelled_verdict")
    assert found == {"bytes": 40, "mean": 0.25}


def test_hostile_names_come_out_whole_or_harmless(books: Books, db: Db) -> None:
    images = [ImageRef(f"/{name}", "1-1", 1) for name in HOSTILE]
    books.save([scored(ref) for ref in images])
    uris = {ref.uri for ref in images}
    shown = db.ok("sql", 'SELECT uri AS "[red]\x1b[31mname" FROM image')
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "[red]markup[/red].jpg" in shown
    assert shown.startswith("[red]\\x1b[31mname")
    lines = db.ok("sql", "SELECT uri FROM image", "--json").splitlines()
    assert {json.loads(line)["uri"] for line in lines} == uris
    table = csv.DictReader(io.StringIO(db.ok("sql", "SELECT uri FROM image", "--csv"), newline=""))
    assert {row["uri"] for row in table} == uris


@pytest.mark.parametrize("limit", [0, 3, 10, 11])
def test_rows_beyond_the_limit_are_left_out_and_that_is_said(limit: int, books: Books, db: Db) -> None:
    books.save([scored(ref) for ref in refs(10)])
    lines = db.ok("sql", "SELECT uri FROM image", "--limit", limit, "--json").splitlines()
    assert len(lines) == (limit if 0 < limit < 10 else 10)
    assert db.notes == (["note: there are more than 3 rows: see --limit"] if limit == 3 else [])


def test_a_query_can_come_from_standard_input(books: Books, db: Db) -> None:
    assert db.ok("sql", "-", "--csv", typed="SELECT 1 AS one\n").splitlines() == ["one", "1"]
    assert "not valid UTF-8" in db.error(2, "sql", "-", typed=b"SELECT '\xff'")
    assert "NUL" in db.error(2, "sql", "-", typed=b"SELECT '\0'")
    assert "not valid UTF-8" in db.error(2, "sql", os.fsdecode(b"SELECT '\xff'"))


def test_columns_of_one_name_are_no_json(books: Books, db: Db) -> None:
    assert "several columns are called x" in db.error(2, "sql", "SELECT 1 AS x, 2 AS x, 3 AS y", "--json")
    assert db.ok("sql", "SELECT 1 AS x, 2 AS x", "--csv").splitlines() == ["x,x", "1,2"]
    assert "do not go together" in db.error(2, "sql", "SELECT 1", "--json", "--csv")


def test_a_query_that_takes_too_long_is_stopped(books: Books, engine: Engine, db: Db) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    assert "was stopped after 0.2 s" in db.error(2, "sql", endless, "--timeout", 0.2)
    assert db.ok("sql", "SELECT 1 AS one", "--timeout", 60, "--csv").splitlines() == ["one", "1"]


def test_a_query_that_is_left_early_leaves_a_connection_that_can_write(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(10)])
    rows = run_query(engine, "SELECT uri FROM image")
    assert next(rows) == ("uri",)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    write(engine, text("UPDATE model SET real_above = 0.9"))
