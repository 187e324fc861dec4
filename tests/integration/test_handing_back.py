"""What ends in order, and what falls silent: the ledger tells one from the other."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, update

from db import schema
from db.ledger import read_ledger
from tests.integration.builders import Books, refs


def test_a_job_that_is_handed_back_counts_no_loss(books: Books) -> None:
    one, two = books.queue(refs(2)), books.queue(refs(2, "b"))
    for _ in range(8):
        assert books.store.begin_job(one.id, "a@host").losses == 0
        assert books.store.release_jobs("a@host") == 1
        assert books.store.begin_job(two.id, "b@host").losses == 0
        assert books.store.release_jobs("a@host") == 0
        assert books.store.release_job(two.id) == 1
    assert books.store.begin_job(one.id, "a@host").losses == 0
    assert books.store.begin_job(one.id, "a@host").losses == 1


def test_a_job_of_a_cancelled_scan_is_over_even_if_it_was_running(books: Books, engine: Engine) -> None:
    running, released = books.queue(refs(2)), books.queue(refs(3, "b"))
    for job in (running, released):
        books.store.begin_job(job.id, f"{job.id}@host")
    books.store.cancel_scan(books.scan_id)
    books.store.release_job(released.id)
    assert books.store.begin_job(running.id, "b@host").is_over
    ledger = read_ledger(engine, books.scan_id)
    assert (ledger.cancelled, ledger.running, ledger.imbalance) == (5, 0, 0)


def test_a_message_for_newer_workers_is_put_off_as_long_as_its_job_is_not_over(books: Books) -> None:
    job = books.queue(refs(2))
    assert books.store.postpone_job(job.id) == 1
    books.store.begin_job(job.id, "newer@host")
    assert books.store.postpone_job(job.id) == 3, "it was delivered again, to a worker that is too old for it"
    assert books.store.release_jobs("newer@host") == 1, "it is still the newer worker's"
    books.run(job)
    assert books.store.postpone_job(job.id) == 0
    assert books.store.postpone_job("unknown") == 0


def test_a_producer_that_falls_silent_while_listing_was_interrupted(books: Books, engine: Engine) -> None:
    books.queue(refs(2))
    assert read_ledger(engine, books.scan_id).scan_status == "listing"
    long_ago = datetime.now(UTC) - timedelta(minutes=2)
    with engine.begin() as connection:
        connection.execute(update(schema.scan).values(touched_at=long_ago))
    assert read_ledger(engine, books.scan_id).scan_status == "interrupted"
    assert not read_ledger(engine, books.scan_id).is_complete  # the job is still to be done
