"""A producer, and a worker that scores without looking: what tests of the queue put in and take out."""

import json
from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from sqlalchemy import Engine

from core.broker import queue_name
from core.jobs import Job
from core.settings import load_settings
from db.ledger import Ledger, read_ledger, verify_scan
from db.queries import find_model
from db.store import Store
from producer.enqueue import Tally, Target
from producer.scan import Scan
from producer.session import Session
from tests.integration.builders import failed, manifest, report, scored

MODEL = "card"
DOWN = "redis://me:hush@127.0.0.1:1/0"
WAIT_SECONDS = 30


def nothing(tally: Tally) -> None:
    """Ignore a tick."""


class Producer:
    """An enqueuer with its database and broker.

    Attributes:
        enqueuer: what is tested.
        engine: of the database.
    """

    def __init__(self, engine: Engine, app: Celery, client: "redis.Redis", **settings: Any) -> None:
        self.engine = engine
        self.store = Store(engine)
        self.session = Session(load_settings(**settings), engine, app, client)
        self.enqueuer = self.session.enqueuer

    def enqueue(
        self, *sources: Path, skip: str = "all", on_tick: Callable[[Tally], None] = nothing, **options: Any
    ) -> Tally:
        """Enqueue folders for the model, as far as it is known."""
        names = [str(source) for source in sources]
        target = Target(MODEL, find_model(self.engine, MODEL), skip)
        tally = self.enqueuer.start(names, target)
        self.enqueuer.enqueue(Scan(names, **options), target, tally, on_tick)
        return tally

    def ledger(self, tally: Tally) -> Ledger:
        """Return the ledger of a scan, which must balance."""
        ledger = read_ledger(self.engine, tally.scan_id)
        assert verify_scan(self.engine, tally.scan_id) == []
        assert (ledger.listed, ledger.skipped) == (tally.listed, tally.skipped)
        return ledger

    def retry(self, tally: Tally) -> list[Job]:
        """Send again what failed or was lost."""
        return list(self.enqueuer.retry(tally.scan_id, MODEL, lambda _: None))


def make_files(folder: Path, number: int) -> Path:
    """Make a folder with so many files that look like images."""
    folder.mkdir(parents=True)
    for index in range(number):
        (folder / f"{index:05}.jpg").write_bytes(b"pixels!" * 3)
    return folder


def messages(client: "redis.Redis") -> list[dict[str, Any]]:
    """Return the messages that wait, the oldest first."""
    return [json.loads(text) for text in reversed(client.lrange(queue_name(MODEL), 0, -1))]


def job_in(message: dict[str, Any]) -> Job:
    """Return the job that a message holds."""
    arguments, _, _ = json.loads(b64decode(message["body"]))
    return Job.from_payload(arguments[0])


def work(producer: Producer, client: "redis.Redis", bad: Sequence[str] = ()) -> list[str]:
    """Score all that waits, as a worker would; return the names of the images."""
    model = manifest(MODEL)
    producer.store.register_model(model)
    names = []
    while raw := client.rpop(queue_name(MODEL)):
        job = job_in(json.loads(raw))
        if producer.store.begin_job(job.id, "worker@host").is_over:
            continue
        of_job = [Path(ref.uri).name for ref in job.images]
        outcomes = [failed(ref) if name in bad else scored(ref) for name, ref in zip(of_job, job.images, strict=True)]
        producer.store.save_job(job, outcomes, report(model))
        names += of_job
    return sorted(names)
