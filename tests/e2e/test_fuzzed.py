"""Broken images and broken messages in a real worker: every image has a status, and the worker goes on.

``make fuzz`` asks for more of them by ``FUZZED_IMAGES`` and ``FUZZED_MESSAGES``.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
import redis
from sqlalchemy import func, select

from core.broker import connect, make_app, open_broker, queue_name, send_job
from core.images import ImageRef
from core.jobs import Job
from core.verdicts import Status
from db import schema
from db.ledger import latest_scan, read_ledger
from db.store import Store
from tests.e2e.conftest import MODEL, Site, wait_for, write_images
from tests.fuzz.fuzz_images import make_case
from tests.fuzz.messages import break_message, worst_messages

pytestmark = pytest.mark.tensorflow

IMAGES = int(os.environ.get("FUZZED_IMAGES", "300"))
MESSAGES = int(os.environ.get("FUZZED_MESSAGES", "100"))
SUFFIXES = {"JPEG": ".jpg", "WebP": ".webp", "PNM": ".ppm", "JPEG2000": ".jp2"}


def write_broken_images(folder: Path, number: int) -> Counter[str]:
    """Write broken images into folders of a thousand; return how many there are of each format."""
    formats = Counter[str]()
    for case in range(number):
        sound, broken = make_case(case, seed=2)
        formats[sound.format] += 1
        suffix = SUFFIXES.get(sound.format, f".{sound.format.lower()}")
        path = folder / f"{case // 1000:03d}" / f"{case:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(broken)
    return formats


def test_a_folder_of_broken_images_costs_no_process_and_the_books_balance(site: Site, tmp_path: Path) -> None:
    formats = write_broken_images(tmp_path / "broken", IMAGES)

    done = site.run("producer", "run", tmp_path / "broken", "--json", "--job-size", "100", timeout=1700)

    assert done.returncode == 0, done.stderr[-4000:] + site.log()
    summary = json.loads(done.stdout)
    assert summary["listed"] == summary["scored"] == sum(formats.values()) == IMAGES
    assert Status.CRASHED not in summary["failures"]
    ledger = read_ledger(site.engine, latest_scan(site.engine))
    assert ledger.ok + sum(ledger.failed.values()) == IMAGES
    assert ledger.ok > IMAGES / 10
    with site.engine.connect() as connection:
        job = schema.job.c
        assert connection.execute(select(func.sum(job.losses), func.max(job.deliveries))).one() == (0, 1)
    assert "0 pending" in site.ok("db", "verify", "--complete")


@contextmanager
def queue_of(site: Site) -> Iterator[tuple["redis.Redis", str, Job]]:
    """Queue a job that no ledger knows, and one of ten images that is; yield the queue, its name and the second job."""
    refs = tuple(ImageRef(str(path), "1-1", 1) for path in write_images(site.folder / "faces", 10))
    store = Store(site.engine)
    scan_id = store.start_scan([str(site.folder)], MODEL, None)
    good = Job(uuid4().hex, scan_id, MODEL, refs)
    store.record_listing(scan_id, [good], skipped=0)
    store.finish_scan(scan_id, "listed", ignored=0)
    with open_broker(site.settings) as url, connect(url) as client:
        send_job(make_app(url), Job(uuid4().hex, scan_id, MODEL, refs))
        yield client, url, good


@pytest.mark.timeout(400)
def test_broken_messages_do_not_end_a_worker_nor_keep_it_from_a_sound_one(site: Site) -> None:
    chance = Random(MESSAGES)
    with queue_of(site) as (client, url, good):
        (template,) = client.lrange(queue_name(MODEL), 0, -1)
        client.lpush(queue_name(MODEL), *worst_messages(template))
        for _ in range(MESSAGES):
            client.lpush(queue_name(MODEL), break_message(template, chance))
        send_job(make_app(url), good)
        with site.worker() as worker:
            for garbage in (b"{}", b"[]", b"no JSON", b"[" * 100_000):  # to all workers, as remote control is
                wait_for(lambda text=garbage: client.publish("/0.celery.pidbox", text), "a worker that listens", 350)
            wait_for(
                lambda: read_ledger(site.engine, good.scan_id).is_complete or worker.poll() is not None,
                "the sound job",
                350,
            )
            assert worker.poll() is None, site.log()
            assert client.llen(queue_name(MODEL)) == 0

    assert read_ledger(site.engine, good.scan_id).ok == 10
