"""The queue when it is full, lost, down or given up: nothing is forgotten, on a real Valkey and every database."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import kombu.pools
import pytest
import redis

from core.broker import connect, held_jobs, make_app, queue_name, queued_messages, send_job
from core.errors import BrokerError
from core.jobs import Job
from db.ledger import read_ledger
from producer.enqueue import Tally, Target
from producer.scan import Scan
from producer.waiting import Waiter
from tests.integration.builders import Books
from tests.integration.producing import DOWN, MODEL, WAIT_SECONDS, Producer, job_in, make_files, messages, nothing, work


def test_redis_never_holds_more_messages_than_allowed(
    make_producer: Callable[..., Producer], broker: str, tmp_path: Path
) -> None:
    faces = make_files(tmp_path / "faces", 40)
    producer = make_producer(job_size=2, max_queued_images=6)
    is_waiting, is_over = threading.Event(), threading.Event()
    held: list[int] = []

    def show(tally: Tally) -> None:
        if tally.is_waiting:
            is_waiting.set()

    def take_what_is_too_much() -> None:
        with connect(broker) as own:
            while not is_over.is_set():
                held.append(queued_messages(own, MODEL))
                if is_waiting.wait(0.001):
                    is_waiting.clear()
                    own.rpop(queue_name(MODEL))

    consumer = threading.Thread(target=take_what_is_too_much)
    consumer.start()
    try:
        tally = producer.enqueue(faces, on_tick=show)
    finally:
        is_over.set()
        consumer.join(WAIT_SECONDS)
    assert (tally.sent, tally.is_waiting) == (40, False)
    assert max(held) == 3


def test_messages_that_a_worker_has_not_acknowledged_count_as_held(
    make_producer: Callable[..., Producer], client: "redis.Redis", broker: str, faces: Path
) -> None:
    producer = make_producer(job_size=5)
    tally = producer.enqueue(faces)
    app = make_app(broker)
    with app.connection_for_read() as connection, connection.SimpleQueue(queue_name(MODEL)) as queue:
        taken = queue.get(timeout=WAIT_SECONDS)
        assert client.llen(queue_name(MODEL)) == 1
        assert queued_messages(client, MODEL) == 1
        assert held_jobs(client, MODEL) == ({messages(client)[0]["headers"]["id"]}, {taken.headers["id"]})
        assert producer.retry(tally) == []
        taken.ack()
        assert queued_messages(client, MODEL) == 1


def test_jobs_that_redis_has_lost_are_found_and_sent_again(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    tally = producer.enqueue(faces)
    before = {job_in(message) for message in messages(client)}
    lost = job_in(json.loads(client.rpop(queue_name(MODEL))))
    assert producer.retry(tally) == [lost]
    client.flushall()
    assert set(producer.retry(tally)) == before
    assert {job_in(message) for message in messages(client)} == before
    assert producer.retry(tally) == []
    work(producer, client)
    assert producer.ledger(tally).ok == 10


def test_jobs_that_failed_are_sent_again_and_done_ones_are_not(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    tally = producer.enqueue(faces)
    gone = job_in(json.loads(client.rpop(queue_name(MODEL))))
    producer.store.fail_job(gone.id, "the storage was away")
    work(producer, client)
    assert producer.ledger(tally).undelivered == len(gone.images)
    assert producer.retry(tally) == [gone]
    work(producer, client)
    ledger = producer.ledger(tally)
    assert (ledger.ok, ledger.undelivered, ledger.is_complete) == (10, 0, True)


def test_a_cancel_while_listing_ends_it(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    tally = producer.enqueue(faces, on_tick=lambda tally: producer.enqueuer.cancel(tally.scan_id))
    ledger = read_ledger(producer.engine, tally.scan_id)
    assert (ledger.scan_status, ledger.imbalance, ledger.cancelled) == ("cancelled", 0, 8)
    assert len(messages(client)) == 2
    assert work(producer, client) == []


def test_an_interrupted_listing_is_named_so_and_what_was_sent_is_kept(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    tally = producer.enqueuer.start([str(faces)], target := Target(MODEL, None))

    def interrupt(tally: Tally) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        producer.enqueuer.enqueue(Scan([str(faces)]), target, tally, interrupt)
    ledger = read_ledger(producer.engine, tally.scan_id)
    assert (ledger.scan_status, ledger.queued, ledger.imbalance) == ("interrupted", 8, 0)
    assert len(work(producer, client)) == 8


def test_waiting_ends_when_nothing_is_pending(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    tally = producer.enqueue(faces)
    worker = threading.Timer(0.5, work, [producer, client])
    worker.start()
    Waiter(producer.session, tally, MODEL).wait(nothing)
    worker.join(WAIT_SECONDS)
    assert producer.ledger(tally).ok == 10


def test_a_broker_that_is_down_is_one_line_without_its_password(
    make_producer: Callable[..., Producer], faces: Path
) -> None:
    with connect(DOWN) as client:
        producer = make_producer(url=DOWN, client=client)
        with pytest.raises(BrokerError, match="is Redis running there") as caught:
            producer.enqueue(faces)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_job_that_was_booked_but_not_sent_is_found_by_a_retry(
    make_producer: Callable[..., Producer], client: "redis.Redis", faces: Path
) -> None:
    with pytest.raises(BrokerError) as caught:
        make_producer(url=DOWN).enqueue(faces)
    assert "hush" not in str(caught.value)
    producer = make_producer()
    tally = Tally(scan_id=1)
    ledger = read_ledger(producer.engine, tally.scan_id)
    assert (ledger.scan_status, ledger.queued, ledger.imbalance) == ("interrupted", 8, 0)
    assert len(producer.retry(tally)) == 2
    assert len(work(producer, client)) == 8
    assert producer.enqueue(faces).sent == 2


def test_the_jobs_of_models_wait_in_queues_of_their_own(
    books: Books, broker: str, client: "redis.Redis", faces: Path
) -> None:
    app = make_app(broker)
    job = books.queue(list(Scan([str(faces)])))
    send_job(app, job)
    other = Job("0" * 32, job.scan_id, "other", job.images)
    send_job(app, other)
    assert held_jobs(client, MODEL) == ({job.id}, set())
    assert held_jobs(client, "other") == ({other.id}, set())
    kombu.pools.reset()
