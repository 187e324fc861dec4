"""From folders to the queue of a real Valkey, and the books of it on every database: what is sent, and what is not."""

import json
import os
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from core.verdicts import Status
from db.ledger import read_ledger
from producer.enqueue import Target, select_images
from producer.scan import Scan
from tests.integration.builders import manifest
from tests.integration.producing import MODEL, Producer, job_in, make_files, messages, work


def test_every_image_is_sent_once_in_jobs_of_the_size_asked_for(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    tally = producer.enqueue(faces)
    jobs = [job_in(message) for message in messages(client)]
    assert sorted(len(job.images) for job in jobs) == [2, 4, 4]
    assert sorted(ref.uri for job in jobs for ref in job.images) == sorted(map(str, faces.iterdir()))
    assert (tally.listed, tally.skipped, tally.sent) == (10, 0, 10)
    ledger = producer.ledger(tally)
    assert (ledger.scan_status, ledger.queued, ledger.listed) == ("listed", 10, 10)


def test_a_message_is_json_with_names_and_without_pixels(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    tally = producer.enqueue(faces, limit=1)
    (message,) = messages(client)
    job = job_in(message)
    assert message["content-type"] == "application/json"
    assert (job.scan_id, job.model, job.id) == (tally.scan_id, MODEL, message["headers"]["id"])
    assert "pixels!" not in json.dumps(message) + b64decode(message["body"]).decode()
    assert message["headers"]["argsrepr"] == f"job {job.id[:8]} scan {tally.scan_id}: 1 images"


def test_what_is_sent_for_flower_stays_short_however_large_the_job(
    make_producer: Callable[..., Producer], client: "redis.Redis", faces: Path
) -> None:
    make_producer(job_size=1000).enqueue(faces)
    (message,) = messages(client)
    assert len(message["headers"]["argsrepr"]) < 80
    assert len(message["headers"]["kwargsrepr"]) < 80


def test_what_has_a_verdict_is_skipped(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    first = producer.enqueue(faces)
    work(producer, client, bad=["00001.jpg"])
    second = producer.enqueue(faces)
    assert (second.listed, second.skipped, second.sent) == (10, 10, 0)
    assert messages(client) == []
    assert producer.ledger(second).is_complete
    assert producer.ledger(first).ok == 9


def test_a_file_whose_content_or_time_changed_is_sent_again(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    producer.enqueue(faces)
    work(producer, client)
    (faces / "00003.jpg").write_bytes(b"other")
    os.utime(faces / "00005.jpg", ns=(1, 1))
    tally = producer.enqueue(faces)
    assert (tally.skipped, tally.sent) == (8, 2)
    assert work(producer, client) == ["00003.jpg", "00005.jpg"]
    assert producer.enqueue(faces).sent == 0


def test_a_new_file_alone_is_sent(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    producer.enqueue(faces)
    work(producer, client)
    (faces / "new.jpg").touch()
    producer.enqueue(faces)
    assert work(producer, client) == ["new.jpg"]


def test_failures_are_sent_again_on_request(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    producer.enqueue(faces)
    work(producer, client, bad=["00001.jpg", "00007.jpg"])
    producer.enqueue(faces, skip="ok")
    assert work(producer, client) == ["00001.jpg", "00007.jpg"]
    assert producer.enqueue(faces, skip="ok").sent == 0


def test_everything_is_sent_again_by_force(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    producer.enqueue(faces)
    work(producer, client)
    assert producer.enqueue(faces, skip="none").sent == 10


def test_a_link_to_nowhere_is_sent_each_time(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    (faces / "link.jpg").symlink_to("gone")
    producer.enqueue(faces)
    work(producer, client, bad=["link.jpg"])
    producer.enqueue(faces)
    assert work(producer, client, bad=["link.jpg"]) == ["link.jpg"]


def test_the_verdicts_of_another_model_do_not_count(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    producer.enqueue(faces)
    work(producer, client)
    producer.store.register_model(manifest(MODEL, sha256="ff" * 32))
    assert producer.enqueue(faces).sent == 10


@pytest.mark.parametrize("number", [10, 2100], ids=["few", "many"])
def test_an_image_in_overlapping_sources_is_sent_once(
    number: int, make_producer: Callable[..., Producer], client: "redis.Redis", tmp_path: Path
) -> None:
    faces = make_files(tmp_path / "all" / "faces", number)
    producer = make_producer(job_size=500)
    tally = producer.enqueue(faces, tmp_path / "all", faces / "00000.jpg")
    assert tally.sent == number
    assert len(work(producer, client)) == number
    assert producer.ledger(tally).ok == number


def test_a_preview_selects_what_would_be_sent(producer: Producer, client: "redis.Redis", faces: Path) -> None:
    producer.enqueue(faces)
    work(producer, client)
    (faces / "new.jpg").touch()
    target = Target(MODEL, manifest(MODEL).id)
    ((listed, images),) = select_images(producer.engine, Scan([str(faces)]), target)
    assert (listed, [Path(ref.uri).name for ref in images]) == (11, ["new.jpg"])


def test_a_status_that_failed_counts_as_done_until_its_file_changes(
    producer: Producer, client: "redis.Redis", faces: Path
) -> None:
    producer.enqueue(faces)
    work(producer, client, bad=["00002.jpg"])
    (faces / "00002.jpg").write_bytes(b"repaired")
    producer.enqueue(faces)
    assert work(producer, client) == ["00002.jpg"]
    assert read_ledger(producer.engine, 1).failed == {str(Status.TRUNCATED): 1}
