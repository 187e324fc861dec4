"""What monitoring is told follows from the ledger, costs what is new, and never counts a job twice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, event, insert, update

import db.metrics
from core.verdicts import Status
from db import schema
from db.exposed import LONGEST_LABEL, MOST_WORKERS, OTHERS
from db.metrics import Durations, LedgerReader, Reading
from tests.integration.builders import Books, failed, job_of, refs, report, scored, write
from tests.integration.commands import HOSTILE
from tests.integration.invoking import Db


@pytest.fixture
def all_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is recent: each is read once."""
    monkeypatch.setattr(db.metrics, "WINDOW", timedelta(0))


def images(reading: Reading, model: str = "card") -> dict[str, float]:
    """The images of a model with a verdict, by outcome, but for those that there are none of."""
    found = reading.plain["facesieve_images_total"]
    return {outcome: number for (name, outcome), number in found.items() if name == model and number}


def told(reading: Reading, name: str, *labels: str) -> float:
    """One number."""
    return reading.plain[f"facesieve_{name}"][labels]


def test_images_are_counted_by_model_and_outcome(new_books: Callable[..., Books], engine: Engine) -> None:
    books = new_books()
    first, second, third = refs(3)
    books.save([scored(first), scored(second), failed(third, Status.TRUNCATED)])
    books.save([scored(ref) for ref in refs(2, "/more/")])
    new_books("other").save([failed(first, Status.NOT_FOUND)])
    reading = LedgerReader(engine).read()
    assert images(reading) == {"ok": 4, "truncated": 1}
    assert images(reading, "other") == {"not_found": 1}


def test_an_outcome_that_there_is_none_of_counts_zero(books: Books, engine: Engine) -> None:
    found = LedgerReader(engine).read().plain["facesieve_images_total"]
    assert found == {("card", str(status)): 0 for status in Status}


def test_the_backlog_is_what_no_worker_has_finished(books: Books, engine: Engine) -> None:
    books.queue(refs(3))
    running, broken, done = (books.queue(refs(size, f"/{size}/")) for size in (5, 7, 11))
    books.store.begin_job(running.id, "worker@host")
    books.store.fail_job(broken.id, "no model")
    books.run(done)
    reading = LedgerReader(engine).read()
    assert (told(reading, "images_pending", "card"), told(reading, "images_in_flight", "card")) == (8, 5)
    assert {state: told(reading, "jobs", "card", state) for state in ("queued", "running", "failed")} == {
        "queued": 1, "running": 1, "failed": 1,
    }  # fmt: skip


def test_the_backlog_of_a_model_that_no_worker_has_started_with_is_told(engine: Engine, books: Books) -> None:
    scan = books.store.start_scan(["/new"], "new.faces", None)
    assert books.store.record_listing(scan, [job_of(refs(4), scan, "new")], skipped=0)
    reading = LedgerReader(engine).read()
    assert (told(reading, "images_pending", "new.faces"), told(reading, "images_pending", "card")) == (4, 0)


def test_the_queue_is_as_old_as_its_longest_waiting_job(books: Books, engine: Engine) -> None:
    reader = LedgerReader(engine)
    assert told(reader.read(), "queue_age_seconds", "card") == 0
    old, _, running = (books.queue(refs(1, f"/{name}/")) for name in "abc")
    an_hour_ago, a_day_ago = (datetime.now(UTC) - timedelta(seconds=seconds) for seconds in (3600, 86_400))
    books.store.begin_job(running.id, "worker@host")
    write(
        engine,
        update(schema.job).where(schema.job.c.id == old.id).values(queued_at=an_hour_ago),
        update(schema.job).where(schema.job.c.id == running.id).values(queued_at=a_day_ago),
    )
    assert 3600 <= told(reader.read(), "queue_age_seconds", "card") < 3600 + 180


def test_times_of_jobs_stand_in_histograms(books: Books, engine: Engine) -> None:
    for number, seconds in enumerate((0.1, 0.3, 4.0, 9_999.0)):
        job = books.queue(refs(2, start=2 * number))
        books.store.save_job(job, [scored(ref) for ref in job.images], report(books.model, seconds))
    found = LedgerReader(engine).read().durations
    assert set(found) == {("card", stage) for stage in ("total", "decode", "predict")}
    assert found["card", "total"] == Durations([1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1], pytest.approx(10_003.4))
    assert found["card", "decode"] == Durations([0, 0, 4, *[0] * 10], pytest.approx(2.0))


def test_the_present_throughput_is_told_by_engine_and_by_worker(books: Books, engine: Engine) -> None:
    for number, worker in enumerate(("one", "two", "two", "old")):
        job = books.queue(refs(60, start=60 * number))
        books.store.save_job(job, [scored(ref) for ref in job.images], replace(report(books.model), worker=worker))
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    write(engine, update(schema.job).where(schema.job.c.worker == "old").values(finished_at=an_hour_ago))
    reading = LedgerReader(engine).read()
    assert reading.plain["facesieve_worker_images_per_second"] == {("one",): 0.5, ("two",): 1.0}
    assert reading.plain["facesieve_engine_images_per_second"] == {("tensorflow", "float32"): 1.5}
    assert images(reading) == {"ok": 240}


def test_the_last_job_is_the_last_one_that_was_done(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(1)])
    broken = books.queue(refs(1, "/broken/"))
    books.store.fail_job(broken.id, "no model")
    done, in_the_future = datetime.now(UTC) - timedelta(hours=2), datetime.now(UTC) + timedelta(hours=2)
    write(
        engine,
        update(schema.job).where(schema.job.c.status == "done").values(finished_at=done),
        update(schema.job).where(schema.job.c.status == "failed").values(finished_at=in_the_future),
    )
    moment = told(LedgerReader(engine).read(), "last_job_timestamp_seconds", "card")
    assert moment == pytest.approx(done.timestamp(), abs=0.001)


def test_deaths_of_workers_are_counted_in_jobs_that_are_open_and_in_those_that_are_done(
    books: Books, engine: Engine
) -> None:
    reader = LedgerReader(engine)
    assert told(reader.read(), "job_losses_total", "card") == 0
    job = books.queue(refs(2))
    for worker in ("first", "second", "third"):
        books.store.begin_job(job.id, worker)
    assert told(reader.read(), "job_losses_total", "card") == 2
    books.store.save_job(job, [scored(ref) for ref in job.images], report(books.model))
    assert told(reader.read(), "job_losses_total", "card") == 2


@pytest.mark.usefixtures("all_settles")
def test_a_job_is_counted_once_however_often_one_reads(books: Books, engine: Engine) -> None:
    reader = LedgerReader(engine)
    for number in range(1, 5):
        job = books.save([scored(ref) for ref in refs(3, start=3 * number)])
        # Delivered twice, and run by another worker to its end.
        books.store.save_job(job, [scored(ref) for ref in job.images], report(books.model))
        assert images(reader.read()) == images(reader.read()) == {"ok": 3 * number}
    assert images(LedgerReader(engine).read()) == images(reader.read())


@pytest.mark.usefixtures("all_settles")
def test_what_was_settled_is_not_read_again(books: Books, engine: Engine) -> None:
    reader = LedgerReader(engine)
    books.save([scored(ref) for ref in refs(3)])
    assert images(reader.read()) == {"ok": 3}
    write(engine, update(schema.job).values(n_ok=1_000_000))
    assert images(reader.read()) == {"ok": 3}


def test_no_reading_but_the_first_looks_at_every_job(books: Books, engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL looks at all rows of tables that are small")
    reader = LedgerReader(engine)
    reader.read()
    asked: list[tuple[str, object]] = []
    event.listen(engine, "before_cursor_execute", lambda *seen: asked.append(seen[2:4]))
    reader.read()
    with engine.connect() as connection:
        plans = [
            row.detail
            for statement, values in list(asked)
            if statement.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            if " job " in row.detail
        ]
    assert len(plans) == 4
    assert all("SEARCH job USING INDEX ix_job_finished" in plan or "ix_job_open" in plan for plan in plans), plans


def test_a_clock_that_is_put_back_counts_nothing_twice(
    books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = LedgerReader(engine)
    books.save([scored(ref) for ref in refs(3)])
    for window in (timedelta(0), timedelta(hours=1)):  # as if it were an hour earlier
        monkeypatch.setattr(db.metrics, "WINDOW", window)
        assert images(reader.read()) == {"ok": 3}


def test_a_pruned_scan_stays_counted(books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    books.save([scored(ref) for ref in refs(3)])
    books.store.finish_scan(books.scan_id, "listed")
    reader = LedgerReader(engine)
    before = reader.read()
    Db(engine, monkeypatch).ok("prune", "--scan", books.scan_id, "--yes")
    for some in (reader, LedgerReader(engine)):
        assert images(some.read()) == images(before) == {"ok": 3}


def test_a_counter_never_falls_and_goes_on_from_where_it_was(books: Books, engine: Engine) -> None:
    reader = LedgerReader(engine)
    job = books.queue(refs(2))
    for worker in ("first", "second", "third"):
        books.store.begin_job(job.id, worker)
    assert told(reader.read(), "job_losses_total", "card") == 2
    books.store.requeue(job.id)  # whose record is clean again
    assert told(reader.read(), "job_losses_total", "card") == 2
    for worker in ("fourth", "fifth"):
        books.store.begin_job(job.id, worker)
    assert told(reader.read(), "job_losses_total", "card") == 3


def test_names_become_labels_that_are_short_and_printable(engine: Engine, books: Books) -> None:
    names = [*HOSTILE, "x" * 64]
    for name in names:
        books.store.start_scan(["/faces"], name, None)
    made = [
        {"id": f"{number:032}", "scan_id": books.scan_id + number, "images": 1, "payload": b"", "status": "queued"}
        for number in range(1, len(names) + 1)
    ]
    write(engine, insert(schema.job).values([{**row, "queued_at": datetime.now(UTC)} for row in made]))
    job = books.queue(refs(1))
    books.store.save_job(job, [scored(refs(1)[0])], replace(report(books.model), worker='w"\n\x1b' + "y" * 200))
    plain = LedgerReader(engine).read().plain
    assert len(plain["facesieve_images_pending"]) == len(names) + 1
    labels = [text for samples in plain.values() for labels in samples for text in labels]
    assert all(text.isprintable() and len(text) <= LONGEST_LABEL for text in labels)


def test_workers_beyond_the_fastest_stand_together(books: Books, engine: Engine) -> None:
    row = {"scan_id": books.scan_id, "model_id": books.model.id, "status": "done", "payload": b"", "total_seconds": 1.0}
    row |= {"engine": "openvino", "precision": "bf16", "queued_at": datetime.now(UTC), "finished_at": datetime.now(UTC)}
    number = MOST_WORKERS + 50
    jobs = [{**row, "id": f"{n:032}", "images": 120 * (n + 1), "worker": f"worker@{n}"} for n in range(number)]
    write(engine, insert(schema.job).values(jobs))
    workers = LedgerReader(engine).read().plain["facesieve_worker_images_per_second"]
    assert len(workers) == MOST_WORKERS + 1
    assert workers[OTHERS,] == pytest.approx(sum(range(1, 51)))
    assert workers[f"worker@{number - 1}",] == number


def test_every_model_is_told_with_what_it_is(new_books: Callable[..., Books], engine: Engine) -> None:
    new_books("one")
    model = new_books("two", trained=False).model
    info = LedgerReader(engine).read().plain["facesieve_model_info"]
    assert len(info) == 2
    assert info["two", model.id, "card-resnet", "card", "false"] == 1
