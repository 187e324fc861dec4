"""``db grant``: each role can do its work on a real PostgreSQL, and is refused the rest by name."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, delete, insert, select, text, update

from core.errors import DatabaseError, UsageError
from core.settings import load_settings
from core.verdicts import Face, FaceVerdict
from db import schema
from db.engine import open_engine, translated
from db.filters import Filter
from db.grants import DUTIES, grant, grant_statements
from db.ledger import longest_job_seconds, read_ledger, stuck_jobs, verify_scan
from db.metrics import LedgerReader
from db.queries import find_model, list_verdicts, scored_fingerprints
from db.statistics import read_statistics
from db.store import Store
from tests.integration.builders import Books, failed, job_of, manifest, refs, report, scored
from tests.integration.invoking import Db

As = Callable[..., Engine]


@pytest.fixture
def owner(postgresql_url: str) -> Iterator[Engine]:
    """Of a database with a scan of three images, of which one failed."""
    engine = open_engine(load_settings(database_url=postgresql_url))
    books = Books(engine, manifest())
    books.store.register_model(books.model)
    images = refs(3)
    books.run(books.queue(images), [scored(images[0]), scored(images[1], 0.1), failed(images[2])])
    books.store.finish_scan(books.scan_id, "listed")
    yield engine
    engine.dispose()


@pytest.fixture
def acting(owner: Engine) -> Iterator[As]:
    """Connect as a new role, with these duties."""
    with ExitStack() as stack:

        def connect(*duties: str, name: str = "", has_grants: bool = True) -> Engine:
            role = name or f"r_{uuid4().hex}"
            quoted = '"' + role.replace('"', '""') + '"'
            with owner.begin() as connection:
                run(connection, f"CREATE ROLE {quoted} LOGIN")
            stack.callback(drop, owner, quoted)
            if has_grants:
                grant(owner, role, duties)
            engine = create_engine(owner.url.set(username=role))
            stack.callback(engine.dispose)
            return engine

        yield connect


def run(connection: object, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})  # type: ignore[attr-defined]


def drop(owner: Engine, role: str) -> None:
    with owner.begin() as connection:
        run(connection, f"DROP OWNED BY {role}")
        run(connection, f"DROP ROLE {role}")


def test_a_worker_can_do_all_its_work(owner: Engine, acting: As) -> None:
    books, worker = Books(owner, manifest()), Store(acting("worker"))
    images = refs(4)
    one, two, three, four = (books.queue(refs(4, f"/{name}/")) for name in "abcd")
    again = books.queue(images)
    worker.register_model(books.model)
    assert longest_job_seconds(worker._engine, "card") == 1.0
    for _ in range(2):  # a second loss, and a crash
        worker.begin_job(one.id, "w@host")
        worker.suspect_image(one.id, 2)
    worker.clear_suspect(one.id)
    for _ in range(2):  # and once more, which changes nothing
        worker.save_job(one, [scored(ref) for ref in one.images], report(books.model))
    worker.begin_job(again.id, "w@host")
    worker.save_job(again, [scored(ref) for ref in again.images], report(books.model))
    worker.begin_job(two.id, "w@host")
    worker.fail_job(two.id, "no reason")
    worker.begin_job(three.id, "w@host")
    worker.release_job(three.id)
    worker.begin_job(four.id, "w@host")
    assert worker.release_jobs("w@host") == 1
    ledger = read_ledger(owner, books.scan_id)
    assert (ledger.ok, ledger.undelivered, ledger.queued, ledger.imbalance) == (8, 4, 8, 0)


def test_a_worker_can_write_the_faces_that_it_finds(owner: Engine, acting: As) -> None:
    model = manifest().with_faces()
    books, worker = Books(owner, model), Store(acting("worker"))
    worker.register_model(model)
    image = refs(1, "/street/")[0]
    for number in (2, 1):  # those of the first time are deleted
        job = replace(job_of([image], books.scan_id), faces=True)
        assert books.store.record_listing(books.scan_id, [job], skipped=0)
        worker.begin_job(job.id, "w@host")
        faces = (FaceVerdict(Face(1, 2, 3, 4, 0.9), 0.2),) * number
        worker.save_job(job, [replace(scored(image, 0.2), faces=faces)], report(model))
    with owner.connect() as connection:
        assert len(connection.execute(select(schema.face)).all()) == 1


def test_a_producer_can_do_all_its_work(owner: Engine, acting: As) -> None:
    engine = acting("producer")
    producer = Store(engine)
    scan_id = producer.start_scan(["/more"], "card", find_model(engine, "card"))
    jobs = [job_of(refs(2, f"/{name}/"), scan_id) for name in "ab"]
    assert scored_fingerprints(engine, find_model(engine, "card") or "", refs(3)).keys() == {r.uri for r in refs(3)}
    assert producer.record_listing(scan_id, jobs, skipped=3)
    producer.finish_scan(scan_id, "listed")
    assert set(stuck_jobs(engine, scan_id, [], failed=True)) == {job.id for job in jobs}
    assert producer.requeue(jobs[0].id) == jobs[0]
    assert read_ledger(engine, scan_id).queued == 4
    assert read_statistics(engine, Filter(model="card")).labels
    assert list(list_verdicts(engine, Filter(), order="score"))
    assert producer.cancel_scan(scan_id) == 2


def test_a_reader_can_ask_every_question_and_is_told_of_db_grant_when_it_writes(
    owner: Engine, acting: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Db(acting("reader"), monkeypatch)
    for words in (
        ["list", "--json"],
        ["stats"],
        ["verify", "--all"],
        ["models"],
        ["sql", "SELECT count(*) FROM labelled_verdict"],
        ["report", "--out", tmp_path / "report.html"],
    ):
        assert db.ok(*words)
    line = db.error(6, "threshold", "card", "--generated-below", "0.2")
    assert "permission denied for table model" in line
    assert "`db grant`" in line


def test_a_reviewer_can_add_what_people_say_and_take_it_back(owner: Engine, acting: As) -> None:
    engine = acting("reviewer")
    row = {"label": "real", "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
    with engine.begin() as connection:
        image_id = connection.execute(select(schema.image.c.id).limit(1)).scalar_one()
        connection.execute(insert(schema.review).values(image_id=image_id, **row))
        assert connection.execute(delete(schema.review)).rowcount == 1


FORBIDDEN = {
    "worker": [
        delete(schema.scan),
        delete(schema.job),
        delete(schema.verdict),
        update(schema.scan).values(status="cancelled"),
        update(schema.job).values(payload=b"another file"),
        update(schema.model).values(name="mine"),
        update(schema.image).values(id=b"1"),
        insert(schema.job).values(id="x", scan_id=1, status="queued", images=1, payload=b""),
        select(schema.review),
    ],
    "producer": [
        update(schema.verdict).values(p_real=0.9),
        text("INSERT INTO verdict (status) VALUES ('ok')"),
        update(schema.image).values(uri="x"),
        update(schema.model).values(generated_below=1.0),
        update(schema.job).values(payload=b"another file"),
        update(schema.job).values(n_ok=1_000_000),
        delete(schema.job),
        delete(schema.scan),
        select(schema.review),
    ],
    "reader": [
        statement
        for table in schema.metadata.tables.values()
        for statement in (delete(table), update(table).values({next(iter(table.c)).name: None}))
    ],
    "reviewer": [
        update(schema.review).values(label="real"),
        delete(schema.image),
        update(schema.verdict).values(p_real=1),
    ],
    "metrics": [
        select(schema.image),
        select(schema.verdict),
        select(schema.scan.c.sources),
        select(schema.job.c.payload),
        select(schema.job.c.error),
        update(schema.job).values(status="done"),
        select(schema.review),
        select(schema.labelled_verdict),
    ],
}


@pytest.mark.parametrize("duty", list(DUTIES))
def test_what_is_not_part_of_a_duty_is_refused(duty: str, owner: Engine, acting: As) -> None:
    engine = acting(duty)
    owners = ["CREATE TABLE mine (x int)", "DROP TABLE verdict", "TRUNCATE verdict", "ALTER TABLE job ADD x int"]
    for statement in [*FORBIDDEN[duty], *map(text, [*owners, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9'"])]:
        refused = pytest.raises(DatabaseError, match=r"permission denied|must be owner")
        with refused as caught, translated(engine), engine.begin() as connection:
            connection.execute(statement)
        assert "`db grant`" in str(caught.value)


def test_an_exporter_can_read_the_numbers(owner: Engine, acting: As) -> None:
    found = LedgerReader(acting("metrics")).read()
    assert sum(found.plain["facesieve_images_total"].values()) == 3


def test_a_grant_takes_back_what_was_granted_before_and_may_be_done_again(owner: Engine, acting: As) -> None:
    engine = acting("worker")
    role = str(engine.url.username)
    for _ in range(2):
        grant(owner, role, ["metrics"])
    with pytest.raises(DatabaseError, match="permission denied"):
        Store(engine).register_model(manifest())
    grant(owner, role, ["producer", "worker"])
    Store(engine).register_model(manifest())
    Store(engine).start_scan(["/x"], "card", None)


@pytest.mark.parametrize("name", ['two words"; DROP TABLE verdict; --', "100%s", "Größe:x"])
def test_any_name_of_a_role_is_only_a_name(name: str, owner: Engine, acting: As) -> None:
    engine = acting("reader", name=name)
    with engine.connect() as connection:
        assert connection.execute(select(schema.verdict.c.status)).all()
    assert verify_scan(owner, 1) == []


def test_grants_that_would_change_nothing_are_refused(owner: Engine, acting: As) -> None:
    stranger = acting(has_grants=False)
    with pytest.raises(DatabaseError, match=r"cannot grant: the tables are owned by postgres"):
        grant(stranger, str(stranger.url.username), ["reader"])
    with pytest.raises(UsageError, match="is a superuser, or has the rights of"):
        grant(owner, str(owner.url.username), ["reader"])
    with pytest.raises(UsageError, match="there is no role 'nobody_there'"):
        grant(owner, "nobody_there", ["reader"])
    with pytest.raises(UsageError, match="--as king: it must be of producer, worker"):
        grant(owner, "x", ["king"])


def test_a_role_without_grants_is_told_of_them(owner: Engine, acting: As) -> None:
    url = acting(has_grants=False).url.render_as_string(hide_password=False)
    with pytest.raises(DatabaseError, match=r"permission denied for table facesieve_schema.*`db grant`"):
        open_engine(load_settings(database_url=url))


def test_a_dry_run_prints_the_sql_and_changes_nothing(
    owner: Engine, acting: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = acting(has_grants=False)
    role = str(engine.url.username)
    db = Db(owner, monkeypatch)
    printed = db.ok("grant", role, "--as", "worker", "--dry-run")
    assert printed.splitlines() == grant_statements(owner, role, ["worker"])
    with pytest.raises(DatabaseError, match="permission denied"):
        longest_job_seconds(engine, "card")
    with owner.begin() as connection:
        for statement in printed.splitlines():
            run(connection, statement)
    assert longest_job_seconds(engine, "card") == 1.0
    assert db.ok("grant", role, "--as", "metrics", "--as", "producer").endswith(
        "now has the rights of: metrics, producer\n"
    )


def test_sqlite_has_no_roles(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(load_settings(database_url=f"sqlite:///{sqlite_template}"))
    assert "SQLite has no roles" in Db(engine, monkeypatch).error(2, "grant", "me", "--as", "reader")
    engine.dispose()
