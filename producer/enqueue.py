"""From listed images to queued jobs: skip what is done, book it, send it, and never flood Redis."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from uuid import uuid4

import redis
from celery import Celery
from sqlalchemy import Engine

from core.broker import claimed_jobs, held_jobs, queued_messages, send_job, translated
from core.images import ImageRef
from core.jobs import Job
from core.settings import Settings
from db.ledger import stuck_jobs
from db.queries import scored_fingerprints
from db.store import Store
from producer.scan import Scan

LOOKUP_SIZE = 2048  # images that are looked up, booked and sent in one go
BACKPRESSURE_SECONDS = 0.2
TOUCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """What the images are scored by.

    Attributes:
        name: of the artifact; it decides the queue.
        model_id: of the model whose verdicts count as done; None if it is not known here.
        skip: which verdicts count as done: ``none``, ``ok`` or ``all``.
    """

    name: str
    model_id: str | None
    skip: str = "all"


@dataclass(slots=True)
class Tally:
    """What an enqueue has done so far, in images."""

    scan_id: int
    is_listing: bool = True
    listed: int = 0
    skipped: int = 0
    sent: int = 0
    is_waiting: bool = False  # for room in Redis
    unlistable: list[str] = field(default_factory=list)
    ignored: int = 0


class Enqueuer:
    """Sends scans to the queue of one model."""

    def __init__(self, settings: Settings, engine: Engine, app: Celery, client: "redis.Redis") -> None:
        self._settings = settings
        self._engine = engine
        self._store = Store(engine)
        self._app = app
        self._client = client

    def start(self, sources: list[str], target: Target) -> Tally:
        """Open a scan."""
        return Tally(scan_id=self._store.start_scan(sources, target.name, target.model_id))

    def enqueue(self, scan: Scan, target: Target, tally: Tally, on_tick: Callable[[Tally], None]) -> None:
        """List, book and send; returns when everything is sent, or the scan was cancelled.

        Args:
            scan: what to list.
            target: by what to score it.
            tally: from ``start``; kept up to date.
            on_tick: called often, also while waiting for room.

        Raises:
            BrokerError: the broker went away; what is booked but not sent is for ``producer retry``.
        """
        status = "interrupted"
        try:
            if self._send_all(scan, target, tally, on_tick):
                status = "listed"
        finally:
            tally.is_listing = False
            tally.ignored, tally.unlistable = scan.ignored, scan.unlistable
            unlistable = len(scan.unlistable)
            self._store.finish_scan(tally.scan_id, status, ignored=scan.ignored, unlistable=unlistable)

    def cancel(self, scan_id: int) -> int:
        """Cancel the jobs of a scan that no worker has begun. Returns how many."""
        return self._store.cancel_scan(scan_id)

    def retry(self, scan_id: int, model: str, on_tick: Callable[[Tally], None]) -> Iterator[Job]:
        """Send again the jobs of a scan that failed as a whole or whose messages Redis has lost; yield each once sent.

        Raises:
            UsageError: there is no such scan.
            BrokerError: the broker did not take them.
        """
        tally = Tally(scan_id, is_listing=False)
        for job_id in self.stuck(scan_id, model, failed=True):
            self._wait_for_room(model, tally, on_tick)
            job = self.resend(job_id)
            if job is not None:
                yield job

    def stuck(self, scan_id: int, model: str, *, failed: bool) -> list[str]:
        """Return the jobs of a scan that Redis or a worker has lost, and those that failed, if asked for."""
        with translated(self._app.conf.broker_url):
            waiting, delivered = held_jobs(self._client, model)
        claimed = claimed_jobs(self._app) if delivered else set()
        held = waiting | (delivered if claimed is None else delivered & claimed)
        return stuck_jobs(self._engine, scan_id, held, failed=failed)

    def resend(self, job_id: str) -> Job | None:
        """Send a job again and return it; None if it is over meanwhile."""
        job = self._store.requeue(job_id)
        if job is not None:
            send_job(self._app, job)
        return job

    def _send_all(self, scan: Scan, target: Target, tally: Tally, on_tick: Callable[[Tally], None]) -> bool:
        """Return False if the scan was cancelled meanwhile."""
        waiting: list[ImageRef] = []
        size = self._settings.job_size
        for listed, wanted in select_images(self._engine, scan, target):
            skipped = listed - len(wanted)
            tally.listed += listed
            tally.skipped += skipped
            waiting += wanted
            full = len(waiting) // size * size
            if not self._send(target, waiting[:full], tally, on_tick, skipped=skipped):
                return False
            del waiting[:full]
        return not waiting or self._send(target, waiting, tally, on_tick)

    def _send(
        self,
        target: Target,
        images: list[ImageRef],
        tally: Tally,
        on_tick: Callable[[Tally], None],
        *,
        skipped: int = 0,
    ) -> bool:
        """Book and send images, as many jobs at a time as there is room for. Return False if the scan was cancelled."""
        size = self._settings.job_size
        pieces = [tuple(images[start : start + size]) for start in range(0, len(images), size)]
        jobs = [Job(uuid4().hex, tally.scan_id, target.name, piece, target.model_id) for piece in pieces]
        while True:
            room = self._wait_for_room(target.name, tally, on_tick) if jobs else 0
            some, jobs = jobs[:room], jobs[room:]
            # Booked first: a job that is booked but not sent can be found and sent again, the reverse would be lost.
            if not self._store.record_listing(tally.scan_id, some, skipped=skipped):
                return False
            for job in some:
                send_job(self._app, job)
                tally.sent += len(job.images)
            on_tick(tally)
            if not jobs:
                return True
            skipped = 0

    def _wait_for_room(self, model: str, tally: Tally, on_tick: Callable[[Tally], None]) -> int:
        """Return how many jobs may be sent, at least one."""
        most = max(1, self._settings.max_queued_images // self._settings.job_size)
        touched = time.monotonic()
        with translated(self._app.conf.broker_url):
            while (room := most - queued_messages(self._client, model)) < 1:
                tally.is_waiting = True
                on_tick(tally)
                time.sleep(BACKPRESSURE_SECONDS)
                if time.monotonic() - touched > TOUCH_SECONDS:
                    self._store.record_listing(tally.scan_id, [], skipped=0)  # a sign of life
                    touched = time.monotonic()
        tally.is_waiting = False
        return room


def select_images(engine: Engine, scan: Scan, target: Target) -> Iterator[tuple[int, list[ImageRef]]]:
    """Yield the images of a scan in pieces: how many were listed, and which of them are still to be scored."""
    listing = iter(scan)
    while listed := list(islice(listing, LOOKUP_SIZE)):
        yield len(listed), _without_done(engine, listed, target)


def _without_done(engine: Engine, listed: list[ImageRef], target: Target) -> list[ImageRef]:
    unique = list({ref.uri: ref for ref in listed}.values())
    if target.model_id is None or target.skip == "none":
        return unique
    done = scored_fingerprints(engine, target.model_id, unique, only_ok=target.skip == "ok")
    # No fingerprint: the file could not be looked at when it was listed, so nobody knows whether it changed.
    return [ref for ref in unique if not ref.fingerprint or done.get(ref.uri) != ref.fingerprint]
