"""The schema: migrations lead to what the program expects, and anything else is refused in one line."""

import ast
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, delete, event, insert, inspect, select, text, update

import db.engine
from core.errors import DatabaseError, FacesieveError, SchemaError
from core.settings import load_settings
from db import schema
from db.engine import make_engine, open_engine, schema_version, upgrade
from db.filters import Filter
from db.ledger import verify_scan
from db.queries import list_verdicts
from tests.integration.builders import Books, job_of, refs, scored, write

VERSIONS = Path(db.engine.__file__).parent / "migrations" / "versions"


@pytest.fixture
def empty(empty_database_url: str) -> Engine:
    """An engine of a database without tables."""
    engine = make_engine(load_settings(database_url=empty_database_url))
    yield engine
    engine.dispose()


def labels(engine: Engine) -> dict[str, str]:
    """Return the label of each image, by the end of its URI."""
    return {row["uri"][-9:-4]: row["label"] for row in list_verdicts(engine, Filter())}


def connections_to(engine: Engine) -> int:
    """Count the connections to a database, but for those of the engine itself, which are closed."""
    engine.dispose()
    if engine.dialect.name == "sqlite":
        opened = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
        return sum(path == str(Path(engine.url.database).resolve()) for path in opened)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        return connection.execute(others, [engine.url.database]).fetchone()[0]


def test_migrations_lead_to_the_tables_of_the_program(empty: Engine) -> None:
    upgrade(empty)
    options = {"compare_type": True, "compare_server_default": True, "version_table": schema.VERSION_TABLE}
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_migrations_lead_to_the_columns_of_the_view(empty: Engine) -> None:
    upgrade(empty)
    columns = [column["name"] for column in inspect(empty).get_columns("labelled_verdict")]
    assert columns == [column.name for column in schema.labelled_verdict.columns]


def test_an_upgrade_brings_a_database_to_the_programs_version_and_again_changes_nothing(empty: Engine) -> None:
    assert schema_version(empty) is None
    upgrade(empty)
    assert schema_version(empty) == schema.HEAD
    upgrade(empty)
    assert schema_version(empty) == schema.HEAD


def upgrade_to(engine: Engine, version: str) -> None:
    """Bring a database to an earlier version."""
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


#: What a database of the first version may hold, in the columns that it had then.
FIRST_ROWS = """
INSERT INTO model (id, name, sha256, architecture, preprocess, trained, real_above, generated_below, registered_at)
VALUES ('m', 'card', 's', 'card-resnet', 'card', true, 0.6, 0.4, '2025-01-02 03:04:05+00:00');
INSERT INTO scan (id, sources, model_name, status, listed, skipped, ignored, unlistable, started_at, touched_at)
VALUES (7, '["/faces"]', 'card', 'listed', 2, 0, 0, 0, '2025-01-02 03:04:05+00:00', '2025-01-02 03:04:05+00:00');
INSERT INTO job (id, scan_id, status, images, n_ok, n_truncated, model_id, queued_at, payload)
VALUES (:job, 7, 'done', 2, 1, 1, 'm', '2025-01-02 03:04:05+00:00', :payload);
INSERT INTO image (id, uri, size_bytes, width, height) VALUES (:first, '/faces/00000.jpg', 10, 640, 480);
INSERT INTO image (id, uri, size_bytes) VALUES (:second, '/faces/00001.jpg', 10);
INSERT INTO verdict (image_id, model_id, status, p_real, reason, fingerprint, scan_id, job_id, scored_at)
VALUES (:first, 'm', 'ok', 0.5, '', '10-1', 7, :job, '2025-01-02 03:04:05+00:00');
INSERT INTO verdict (image_id, model_id, status, reason, fingerprint, scan_id, job_id, scored_at)
VALUES (:second, 'm', 'truncated', 'cut off', '10-1', 7, :job, '2025-01-02 03:04:05+00:00')
"""


def test_an_upgrade_from_the_first_version_keeps_every_row(empty: Engine) -> None:
    upgrade_to(empty, "0001")
    first, second = images = refs(2)
    job = job_of(images, 7)
    payload = zlib.compress(json.dumps(job.to_payload()).encode())
    values = {"job": job.id, "payload": payload, "first": first.id, "second": second.id}
    for statement in FIRST_ROWS.split(";"):
        write(empty, text(statement).bindparams(**{name: values[name] for name in values if f":{name}" in statement}))

    upgrade(empty)

    assert schema_version(empty) == schema.HEAD
    assert verify_scan(empty, 7) == []
    rows = list(list_verdicts(empty, Filter()))
    assert [(row["uri"], row["label"], row["status"], row["width"]) for row in rows] == [
        (first.uri, "unsure", "ok", 640), (second.uri, None, "truncated", None),
    ]  # fmt: skip
    assert rows[0]["scored_at"] == datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    with empty.connect() as connection:
        (model,) = connection.execute(select(schema.model))
        assert (model.thresholds_set_at, model.operating_points) == (None, None)
        assert connection.execute(select(schema.image.c.phash)).scalars().all() == [None, None]
        assert connection.execute(select(schema.job.c.pruned)).scalars().all() == [0]


def test_an_upgrade_from_the_second_version_cuts_reasons_that_are_too_long_for_an_index(empty: Engine) -> None:
    upgrade_to(empty, "0002")
    first, second = refs(2)
    values = {"job": "j", "payload": b"", "first": first.id, "second": second.id}
    for statement in FIRST_ROWS.split(";"):
        write(empty, text(statement).bindparams(**{name: values[name] for name in values if f":{name}" in statement}))
    # No two alike: PostgreSQL would compress what repeats itself.
    reason = "".join(chr(0x4E00 + number) for number in range(4000))
    verdict = schema.verdict
    write(empty, update(verdict).where(verdict.c.status == "truncated").values(reason=reason))

    upgrade(empty)

    rows = list(list_verdicts(empty, Filter()))
    assert [(row["status"], row["reason"]) for row in rows] == [("ok", ""), ("truncated", reason[:500])]


def test_an_upgrade_from_before_there_were_faces_keeps_every_row_and_faces_go_with_their_verdicts(
    empty: Engine,
) -> None:
    upgrade_to(empty, "0003")
    first, second = images = refs(2)
    job = job_of(images, 7)
    payload = zlib.compress(json.dumps(job.to_payload()).encode())
    values = {"job": job.id, "payload": payload, "first": first.id, "second": second.id}
    for statement in FIRST_ROWS.split(";"):
        write(empty, text(statement).bindparams(**{name: values[name] for name in values if f":{name}" in statement}))

    upgrade(empty)

    assert verify_scan(empty, 7) == []
    face = {"image_id": first.id, "model_id": "m", "number": 1, "x": 0, "y": 0, "width": 40, "height": 50}
    write(empty, insert(schema.face).values(**face, confidence=0.9, p_real=0.5))
    write(empty, delete(schema.verdict).where(schema.verdict.c.image_id == first.id))
    with empty.connect() as connection:
        assert connection.execute(select(schema.job.c.n_ok, schema.job.c.n_no_face)).all() == [(1, 0)]
        assert connection.execute(select(schema.face)).all() == []
        assert len(connection.execute(select(schema.image)).all()) == 2


def test_an_upgrade_from_before_monitoring_indexes_the_jobs_that_are_there(empty: Engine) -> None:
    upgrade_to(empty, "0004")
    for statement in FIRST_ROWS.split(";")[:3]:
        values = {name: value for name, value in {"job": "j", "payload": b""}.items() if f":{name}" in statement}
        write(empty, text(statement).bindparams(**values))

    upgrade(empty)

    assert {"ix_job_finished", "ix_job_open"} <= {index["name"] for index in inspect(empty).get_indexes("job")}
    with empty.connect() as connection:
        assert connection.execute(select(schema.job.c.id, schema.job.c.n_ok)).all() == [("j", 1)]


def test_there_is_a_test_of_the_upgrade_from_every_earlier_version() -> None:
    assert [file.name[:4] for file in sorted(VERSIONS.glob("0*.py"))] == ["0001", "0002", "0003", "0004", "0005"]


def test_the_programs_version_is_the_newest_migration() -> None:
    revisions = {}
    for file in VERSIONS.glob("*.py"):
        names = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        revisions[names["revision"]] = names["down_revision"]
    assert set(revisions) - set(revisions.values()) == {schema.HEAD}
    assert max(revisions) == schema.HEAD  # versions are compared as text


def test_two_upgrades_at_once_do_no_harm(empty: Engine, empty_database_url: str) -> None:
    command = [sys.executable, "-m", "db", "--database", empty_database_url, "upgrade"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    assert schema_version(empty) == schema.HEAD


def test_an_sqlite_file_is_made_and_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    engine = open_engine(load_settings(database_url=f"sqlite:///{tmp_path / 'new.db'}"))
    assert schema_version(engine) == schema.HEAD
    engine.dispose()


def test_a_server_without_tables_is_refused_with_what_to_do(empty: Engine, empty_database_url: str) -> None:
    if empty.dialect.name == "sqlite":
        open_engine(load_settings(database_url=empty_database_url)).dispose()
        assert schema_version(empty) == schema.HEAD
    else:
        with pytest.raises(SchemaError, match="run `db upgrade`"):
            open_engine(load_settings(database_url=empty_database_url))
        assert schema_version(empty) is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0000", "older than this program's .* run `db upgrade`"), ("9999", "newer than this program's .* install")],
)
def test_a_schema_of_another_version_is_refused_in_one_line(
    version: str, expected: str, engine: Engine, database_url: str
) -> None:
    write(engine, text(f"UPDATE {schema.VERSION_TABLE} SET version_num = :version").bindparams(version=version))
    with pytest.raises(SchemaError, match=expected) as caught:
        open_engine(load_settings(database_url=database_url))
    assert "\n" not in str(caught.value)
    assert connections_to(engine) == 0, "the refused engine still holds a connection"


def test_labels_follow_the_thresholds_of_the_model(books: Books, engine: Engine) -> None:
    scores = [0.0, 0.2, 0.3, 0.4, 0.5, 0.9, 1.0]
    books.save([scored(ref, score) for ref, score in zip(refs(7), scores, strict=True)])
    assert list(labels(engine).values()) == ["generated"] * 5 + ["real"] * 2
    write(engine, update(schema.model).values(generated_below=0.2, real_above=0.4))
    assert list(labels(engine).values()) == ["generated"] * 2 + ["unsure"] * 2 + ["real"] * 3


def test_every_label_of_an_untrained_model_says_so(new_books: Callable[..., Books], engine: Engine) -> None:
    books = new_books("untrained", trained=False)
    books.save([scored(ref, score) for ref, score in zip(refs(2), [0.1, 0.9], strict=True)])
    assert labels(engine) == {"00000": "generated (untrained)", "00001": "real (untrained)"}


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "mysql://me:hush@host/db",
        "postgresql+psycopg2://me:hush@host/db",
        "postgresql+psycopg://me:hush@host:port/db",
        "postgresql+psycopg://me:hu@sh:hush@host:port/db",
        "postgresql+nothing://me:hush@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite://me:hush@host/",
        "sqlite:////nowhere/at/all/hush.db",
        "://me:hush@host/db",
    ],
)
def test_a_url_that_cannot_be_used_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        make_engine(load_settings(database_url=url))
    assert "me:hush" not in str(caught.value)
    assert ":hush@" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush@127.0.0.1:1/db",
        "postgresql+psycopg://me:hush@127.0.0.1:1/db?connect_timeout=2",
        "postgresql://127.0.0.1:1/db?user=me&password=hush",
    ],
)
def test_a_server_that_is_down_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        open_engine(load_settings(database_url=url))
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_what_a_url_says_about_its_connection_is_not_overruled() -> None:
    asked: dict[str, Any] = {}

    def refuse(_dialect: object, _record: object, _words: object, parameters: dict[str, Any]) -> None:
        asked.update(parameters)
        raise ConnectionError

    url = "postgresql+psycopg://me@127.0.0.1:1/db?connect_timeout=3&keepalives_idle=5"
    engine = make_engine(load_settings(database_url=url))
    event.listen(engine, "do_connect", refuse)
    with pytest.raises(ConnectionError):
        engine.connect()
    assert (asked["connect_timeout"], asked["keepalives_idle"]) == ("3", "5")
    assert asked["keepalives_interval"] > 0, "what it says nothing about stays ours"


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b"SQLite format 3\0" + b"\xff" * 2000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "faces.db"
    path.write_bytes(content)
    with pytest.raises(FacesieveError, match=r"faces\.db failed"):
        open_engine(load_settings(database_url=f"sqlite:///{path}"))
    assert path.read_bytes() == content
