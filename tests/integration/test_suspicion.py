"""Which image killed the worker: the guilty are found, the innocent are not blamed, on every database."""

from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, select

from core.images import ImageRef
from core.jobs import Job
from core.verdicts import Outcome, Status
from db import schema
from db.ledger import verify_scan
from tests.integration.builders import Books, refs, report
from worker.fetch import Fetched
from worker.runner import Runner

WORKER = "worker@host"


class WorkerDied(BaseException):
    """What a test raises where a real worker would be killed."""


class Halves:
    """Gives every image the score 0.5."""

    batch_size = 2

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full(len(batch), 0.5, np.float32)


def deliver(books: Books, job: Job, poison: Collection[int] = ()) -> list[Outcome] | None:
    """Deliver a job once to a worker that dies when it decodes poison; return the outcomes if it lives."""

    def fetch(ref: ImageRef, _: object) -> Fetched:
        if job.images.index(ref) in poison:
            raise WorkerDied
        return Fetched(ref, np.zeros((1, 1, 3), np.uint8), b"digest", 1, 1, 0)

    def mark(position: int | None) -> None:
        if position is None:
            books.store.clear_suspect(job.id)
        else:
            books.store.suspect_image(job.id, position)

    delivery = books.store.begin_job(job.id, WORKER)
    try:
        outcomes, _ = Runner(fetch, Halves(), threads=1).run(job.images, delivery, mark)
    except WorkerDied:
        return None
    books.store.save_job(job, outcomes, report(books.model))
    return outcomes


def test_each_delivery_that_finds_the_job_running_counts_a_loss(books: Books) -> None:
    job = books.queue(refs(3))
    assert [books.store.begin_job(job.id, WORKER).losses for _ in range(4)] == [0, 1, 2, 3]


def test_a_suspect_is_named_after_one_death_and_crashed_after_two(books: Books) -> None:
    job = books.queue(refs(5))
    books.store.begin_job(job.id, WORKER)
    assert books.store.begin_job(job.id, WORKER).suspect is None
    books.store.suspect_image(job.id, 3)
    delivery = books.store.begin_job(job.id, WORKER)
    assert (delivery.suspect, delivery.crashed) == (3, frozenset())
    books.store.suspect_image(job.id, 3)
    delivery = books.store.begin_job(job.id, WORKER)
    assert (delivery.suspect, delivery.crashed, delivery.losses) == (None, {3}, 1)


def test_a_suspect_that_was_decoded_after_all_is_forgotten(books: Books) -> None:
    job = books.queue(refs(5))
    books.store.begin_job(job.id, WORKER)
    for other, position in ((4, 3), (3, 4)):  # each was being decoded when the worker died, but never twice in a row
        books.store.suspect_image(job.id, other)
        books.store.suspect_image(job.id, position)
        delivery = books.store.begin_job(job.id, WORKER)
        assert (delivery.suspect, delivery.crashed) == (position, frozenset())
    books.store.clear_suspect(job.id)
    delivery = books.store.begin_job(job.id, WORKER)
    assert (delivery.suspect, delivery.crashed) == (None, frozenset())


def test_a_death_before_the_suspect_is_decoded_again_is_not_held_against_it(books: Books) -> None:
    job = books.queue(refs(5))
    books.store.begin_job(job.id, WORKER)
    books.store.suspect_image(job.id, 3)
    for _ in range(3):
        delivery = books.store.begin_job(job.id, WORKER)
        assert (delivery.suspect, delivery.crashed) == (3, frozenset())


@pytest.mark.parametrize("poison", [{0}, {3}, {6}, {0, 6}, {2, 3, 4}])
def test_poison_is_found_and_all_else_is_scored(poison: set[int], books: Books, engine: Engine) -> None:
    job = books.queue(refs(7))
    deliveries = 0
    while (outcomes := deliver(books, job, poison)) is None:
        deliveries += 1
        assert deliveries <= 1 + 2 * len(poison)
    assert {n for n, outcome in enumerate(outcomes) if outcome.status is Status.CRASHED} == poison
    assert all(outcome.p_real == 0.5 for n, outcome in enumerate(outcomes) if n not in poison)
    assert verify_scan(engine, books.scan_id) == []


def test_losses_stay_few_however_many_images_are_poison(books: Books, engine: Engine) -> None:
    job = books.queue(refs(6))
    losses = []
    while deliver(books, job, {0, 1, 2, 3, 4, 5}) is None:
        with engine.connect() as connection:
            losses.append(connection.execute(select(schema.job.c.losses)).scalar_one())
        assert len(losses) < 20
    assert max(losses) <= 3


def test_a_worker_that_dies_of_something_else_makes_no_image_crashed(books: Books) -> None:
    job = books.queue(refs(5))
    for position in (1, 2, 3):
        assert deliver(books, job, {position}) is None
    outcomes = deliver(books, job)
    assert outcomes is not None
    assert {outcome.status for outcome in outcomes} == {Status.OK}


def test_a_retry_of_a_job_remembers_what_crashed(books: Books) -> None:
    job = books.queue(refs(3))
    for _ in range(3):
        assert deliver(books, job, {2}) is None
    assert books.store.begin_job(job.id, WORKER).crashed == {2}
    books.store.fail_job(job.id, "gone")
    books.store.requeue(job.id)
    delivery = books.store.begin_job(job.id, WORKER)
    assert (delivery.losses, delivery.suspect) == (0, None)
