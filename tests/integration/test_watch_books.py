"""The books of a watch on every database: what is sent again and what is not, how it ends, and what it survives."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from core.broker import connect
from core.embedded import EmbeddedBroker
from core.errors import BrokerError, SourceError, UsageError
from db.ledger import read_ledger
from db.queries import find_model
from producer import watching
from producer.watching import Pace
from tests.integration.producing import MODEL, Producer, job_in, make_files, messages, work
from tests.integration.watched import (
    FIRST,
    LISTING,
    SETTLE_SECONDS,
    WatchFolders,
    queued,
    wait_for,
    wait_for_queued,
)


def test_an_image_waits_for_others_but_not_longer_than_allowed(
    watch: WatchFolders, client: "redis.Redis", faces: Path
) -> None:
    with watch(faces, pace=Pace(settle=SETTLE_SECONDS, max_wait=600)) as watched:
        wait_for(lambda: watched.watch.unsent == 2, "two full jobs and two images")
        assert sum(queued(client).values()) == 8
    assert sorted(len(job_in(message).images) for message in messages(client)) == [2, 4, 4], "the stop sends the rest"
    assert watched.watch.unsent == 0


def test_a_file_that_changes_is_scored_again(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, folder: Path
) -> None:
    with watch(folder):
        wait_for_queued(client, FIRST)
        assert work(producer, client) == [FIRST]
        (folder / FIRST).write_bytes(b"something else")
        wait_for_queued(client, FIRST)
        assert work(producer, client) == [FIRST]
        os.utime(folder / FIRST)
        wait_for_queued(client, FIRST)
        (folder / FIRST).chmod(0o600)  # reported, but neither its size nor its time changes
        (folder / "last.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "last.jpg")


def test_a_file_that_changes_while_it_is_queued_is_queued_again(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    with watch(folder):
        wait_for_queued(client, FIRST)
        (folder / FIRST).write_bytes(b"something else")
        wait_for(lambda: queued(client)[FIRST] == 2, "the second content")


def test_what_is_queued_and_not_scored_is_not_queued_again_by_the_next_listing(
    watch: WatchFolders, client: "redis.Redis", faces: Path
) -> None:
    with watch(faces, pace=LISTING) as watched:
        wait_for(lambda: watched.watch.tally.sent == 10, "all images")
        watched.wait_for_rounds(2)
    assert set(queued(client).values()) == {1}
    assert (watched.watch.tally.listed, watched.watch.tally.skipped) == (10, 0)


def test_another_start_goes_on_where_the_last_one_stopped(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, faces: Path
) -> None:
    with watch(faces):
        wait_for(lambda: len(queued(client)) == 10, "all images")
    work(producer, client)
    make_files(faces / "while nobody looked", 1)
    (faces / "00007.jpg").write_bytes(b"changed meanwhile")
    with watch(faces, pace=LISTING) as watched:
        wait_for(lambda: len(queued(client)) == 2, "the new image and the changed one")
        watched.wait_for_rounds(1)
    assert sorted(work(producer, client)) == ["00000.jpg", "00007.jpg"]
    assert (watched.watch.tally.skipped, watched.watch.tally.sent) == (9, 2), "each counts once, however often listed"


@pytest.mark.parametrize("moment", ["at once", "in the middle", "when all is queued"])
def test_a_stop_leaves_books_that_balance(
    moment: str, watch: WatchFolders, client: "redis.Redis", tmp_path: Path
) -> None:
    with watch(make_files(tmp_path / "many", 500)) as watched:
        least = {"at once": 0, "in the middle": 1, "when all is queued": 500}[moment]
        wait_for(lambda: watched.watch.tally.sent >= least, "so many")
    assert sum(queued(client).values()) == watched.watch.tally.sent  # and the books balance, see the fixture
    assert watched.errors == []


def test_a_stop_while_the_queue_is_full_says_what_is_left(
    watch: WatchFolders, client: "redis.Redis", make_producer: Callable[..., Producer], tmp_path: Path
) -> None:
    faces = make_files(tmp_path / "faces", 20)
    with watch(faces, by=make_producer(max_queued_images=8)) as watched:
        wait_for(lambda: watched.watch.tally.is_waiting, "a full queue")
    assert (watched.watch.tally.sent, watched.watch.unsent) == (8, 12)
    assert sum(queued(client).values()) == 8
    with watch(faces) as watched:
        wait_for(lambda: watched.watch.tally.sent == 20, "all of them")


def test_a_cancelled_scan_ends_its_watch(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, folder: Path
) -> None:
    with watch(folder) as watched:
        wait_for_queued(client, FIRST)
        scan_id = watched.watch.tally.scan_id
        producer.enqueuer.cancel(scan_id)
        (folder / "a.jpg").write_bytes(b"1")
        wait_for(lambda: not watched.watch.tally.is_listing, "the end")
    assert watched.errors == []
    assert read_ledger(producer.engine, scan_id).scan_status == "cancelled"
    assert set(queued(client)) == {FIRST}


def test_a_scan_is_listing_as_long_as_it_is_watched(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "TOUCH_SECONDS", 0.1)
    touched: list[int] = []
    with watch(folder) as watched:
        store = watched.watch._enqueuer._store
        record = store.record_listing

        def count(scan_id: int, jobs: Any, *, skipped: int) -> bool:
            touched.append(len(jobs))
            return record(scan_id, jobs, skipped=skipped)

        monkeypatch.setattr(store, "record_listing", count)
        wait_for(lambda: touched.count(0) > 2, "signs of life")
        assert read_ledger(producer.engine, watched.watch.tally.scan_id).scan_status == "listing"
    assert read_ledger(producer.engine, watched.watch.tally.scan_id).scan_status == "listed"


def test_a_model_that_is_registered_meanwhile_is_asked_for(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, folder: Path
) -> None:
    with watch(folder):
        wait_for_queued(client, FIRST)
        assert job_in(messages(client)[0]).model_id is None
        work(producer, client)
        (folder / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, "a.jpg")
        assert job_in(messages(client)[0]).model_id == find_model(producer.engine, MODEL)


def test_a_broker_that_is_away_for_a_while_is_waited_for(
    watch: WatchFolders, make_producer: Callable[..., Producer], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "broker").mkdir()
    with EmbeddedBroker(tmp_path / "broker") as broker, connect(broker.url) as client:
        producer = make_producer(url=broker.url, client=client, broker_url=broker.url)
        with watch(folder, by=producer) as watched:
            wait_for_queued(client, FIRST)
            broker.stop()
            (folder / "a.jpg").write_bytes(b"1")
            wait_for(lambda: watched.said, "a note")
            (folder / "b.jpg").write_bytes(b"1")
            broker.start()
            wait_for_queued(client, FIRST, "a.jpg", "b.jpg")
        assert [line for line in watched.said if "does not answer" in line] == watched.said[:1]
        assert "are back" in watched.said[1]
        assert len(watched.said) == 2
        assert watched.errors == []


def test_a_stop_while_the_broker_is_away_says_so(
    watch: WatchFolders, make_producer: Callable[..., Producer], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "broker").mkdir()
    with EmbeddedBroker(tmp_path / "broker") as broker, connect(broker.url) as client:
        producer = make_producer(url=broker.url, client=client, broker_url=broker.url)
        with watch(folder, by=producer) as watched:
            wait_for_queued(client, FIRST)
            broker.stop()
            (folder / "a.jpg").write_bytes(b"1")
            wait_for(lambda: watched.said, "a note")
        broker.start()
        ledger = read_ledger(producer.engine, watched.watch.tally.scan_id)
    assert [type(error) for error in watched.errors] == [BrokerError]
    assert (watched.watch.tally.sent, watched.watch.unsent) == (1, 1)
    assert (ledger.scan_status, ledger.imbalance) == ("interrupted", 0)


def test_a_database_that_is_away_for_a_while_is_waited_for(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, folder: Path
) -> None:
    is_away = threading.Event()

    def fail(*_: object) -> None:
        if is_away.is_set():
            raise OperationalError("a statement", {}, Exception("the server closed the connection"))

    event.listen(producer.engine, "before_cursor_execute", fail)
    with watch(folder) as watched:
        wait_for_queued(client, FIRST)
        is_away.set()
        (folder / "a.jpg").write_bytes(b"1")
        wait_for(lambda: watched.said, "a note")
        is_away.clear()
        wait_for_queued(client, FIRST, "a.jpg")
    assert "the server closed the connection" in watched.said[0]
    assert watched.errors == []


def test_jobs_that_the_broker_has_lost_are_sent_again(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(watching, "LOST_AGAIN_SECONDS", 0.2)
    with watch(faces) as watched:
        wait_for(lambda: len(queued(client)) == 10, "all images")
        client.flushall()
        wait_for(lambda: len(queued(client)) == 10, "all images again")
    assert set(queued(client).values()) == {1}
    assert watched.watch.tally.listed == 10
    assert len(work(producer, client)) == 10


def test_a_source_that_does_not_exist_cannot_be_watched(watch: WatchFolders, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gone does not exist"), watch(tmp_path / "gone"):
        pass


@pytest.mark.parametrize("source", ["faces.txt", "shard.tar", "https://example.org/a.jpg", "s3://b/shard.tar", "-"])
def test_what_is_neither_a_folder_nor_a_bucket_cannot_be_watched(
    source: str, watch: WatchFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("faces.txt", "shard.tar", "-"):
        (tmp_path / name).write_bytes(b"a.jpg")
    with pytest.raises(UsageError, match="cannot be watched: name a folder"), watch(source):
        pass
