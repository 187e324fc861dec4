"""From listed images to queued jobs: skip what is done, book it, send it, and never flood Redis."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar
from uuid import uuid4

import redis
from celery import Celery
from sqlalchemy import Engine

from core.broker import claimed_jobs, held_jobs, queued_messages, send_job, translated
from core.images import UNCHANGING, ImageRef
from core.jobs import Job
from core.manifest import artifact_name, is_of_faces
from core.settings import Settings
from db.ledger import stuck_jobs
from db.queries import scored_fingerprints
from db.store import Store
from producer.scan import Scan

T = TypeVar("T")

LOOKUP_SIZE = 2048  # images that are looked up, booked and sent in one go
SHUFFLED_IMAGES = 65_536  # that wait for their turn, where jobs are sent in random order
BACKPRESSURE_SECONDS = 0.2
TOUCH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """What the images are scored by.

    Attributes:
        name: of the model; it decides the queue, and whether faces are looked for.
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


class Attempt(Protocol):
    """How to do one thing with the broker or the database: once, or again until they are there."""

    def __call__(self, act: Callable[[], T], /) -> T:
        """Do it and return its result."""
        ...


def once(act: Callable[[], T], /) -> T:
    """Do it, and let it fail."""
    return act()


class Enqueuer:
    """Sends scans to the queue of one model."""

    def __init__(
        self, settings: Settings, engine: Engine, app: Celery, client: "redis.Redis", attempt: Attempt = once
    ) -> None:
        """Take what to send with.

        Args:
            settings: say how large jobs are, and how many may wait.
            engine: of the database.
            app: to send with.
            client: of the broker, to count with.
            attempt: how to do each step of sending; each may be done again.
        """
        self._settings = settings
        self._engine = engine
        self._store = Store(engine)
        self._app = app
        self._client = client
        self._attempt = attempt

    def start(self, sources: list[str], target: Target) -> Tally:
        """Open a scan."""
        return Tally(scan_id=self._store.start_scan(sources, target.name, target.model_id))

    def enqueue(
        self,
        scan: Scan,
        target: Target,
        tally: Tally,
        on_tick: Callable[[Tally], None],
        *,
        is_shuffled: bool = False,
    ) -> None:
        """List, book and send; returns when everything is sent, or the scan was cancelled.

        Args:
            scan: what to list.
            target: by what to score it.
            tally: from ``start``; kept up to date.
            on_tick: called often, also while waiting for room.
            is_shuffled: send the jobs in random order, as far as ``SHUFFLED_IMAGES`` allow: each is drawn from the
                jobs of about so many images that were listed before it and are not yet sent.

        Raises:
            BrokerError: the broker went away; what is booked but not sent is for ``producer retry``.
        """
        status = "interrupted"
        try:
            if self._send_all(scan, target, tally, on_tick, is_shuffled=is_shuffled):
                status = "listed"
        finally:
            tally.ignored, tally.unlistable = scan.ignored, scan.unlistable
            self.finish(tally, status, unlistable=scan.unlistable_count)

    def finish(self, tally: Tally, status: str, *, unlistable: int) -> None:
        """Close a scan as ``listed`` or ``interrupted``."""
        tally.is_listing = False
        self._store.finish_scan(tally.scan_id, status, ignored=tally.ignored, unlistable=unlistable)

    def touch(self, tally: Tally) -> bool:
        """Give a sign of life. Return False if the scan was cancelled."""
        return self._store.record_listing(tally.scan_id, [], skipped=0)

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
            send_job(self._app, job, self._settings.signing_keys)
        return job

    def _send_all(
        self, scan: Scan, target: Target, tally: Tally, on_tick: Callable[[Tally], None], *, is_shuffled: bool
    ) -> bool:
        """Return False if the scan was cancelled meanwhile."""
        size = self._settings.job_size
        held = SHUFFLED_IMAGES // size if is_shuffled else 0
        waiting: list[ImageRef] = []
        pieces: list[list[ImageRef]] = []
        for listed, wanted in select_images(self._engine, scan, target):
            skipped = listed - len(wanted)
            tally.listed += listed
            tally.skipped += skipped
            waiting += wanted
            full = len(waiting) // size * size
            pieces += cut(waiting[:full], size)
            del waiting[:full]
            if is_shuffled:
                random.shuffle(pieces)
            if not self.send(target, pieces[held:], tally, on_tick, skipped=skipped):
                return False
            del pieces[held:]
        pieces += cut(waiting, size)
        return not pieces or self.send(target, pieces, tally, on_tick)

    def send(
        self,
        target: Target,
        pieces: Sequence[list[ImageRef]],
        tally: Tally,
        on_tick: Callable[[Tally], None],
        *,
        skipped: int = 0,
    ) -> bool:
        """Book and send jobs, as many at a time as there is room for. Return False if the scan was cancelled.

        Args:
            target: by what to score.
            pieces: the images of each job.
            tally: kept up to date.
            on_tick: called after each piece of work.
            skipped: how many images were listed besides and are not sent.
        """
        most = LOOKUP_SIZE // self._settings.job_size + 1
        while True:
            room = min(self._wait_for_room(target.name, tally, on_tick), most) if pieces else 0
            some, pieces = pieces[:room], pieces[room:]
            # Booked first: a job that is booked but not sent can be found and sent again, the reverse would be lost.
            jobs = self._attempt(partial(self._book, target, some, tally, skipped=skipped))
            if jobs is None:
                return False
            for job in jobs:
                self._attempt(partial(send_job, self._app, job, self._settings.signing_keys))
                tally.sent += len(job.images)
            on_tick(tally)
            if not pieces:
                return True
            skipped = 0

    def _book(
        self, target: Target, pieces: Sequence[list[ImageRef]], tally: Tally, *, skipped: int
    ) -> list[Job] | None:
        """Book new jobs and return them; None if the scan was cancelled."""
        artifact, faces = artifact_name(target.name), is_of_faces(target.name)
        jobs = [
            Job(uuid4().hex, tally.scan_id, artifact, tuple(piece), target.model_id, faces=faces) for piece in pieces
        ]
        return jobs if self._store.record_listing(tally.scan_id, jobs, skipped=skipped) else None

    def _wait_for_room(self, model: str, tally: Tally, on_tick: Callable[[Tally], None]) -> int:
        """Return how many jobs may be sent, at least one."""
        touched = time.monotonic()
        while (room := self._attempt(partial(self._room, model))) < 1:
            tally.is_waiting = True
            on_tick(tally)
            time.sleep(BACKPRESSURE_SECONDS)
            if time.monotonic() - touched > TOUCH_SECONDS:
                self._attempt(partial(self.touch, tally))
                touched = time.monotonic()
        tally.is_waiting = False
        return room

    def _room(self, model: str) -> int:
        most = max(1, self._settings.max_queued_images // self._settings.job_size)
        with translated(self._app.conf.broker_url):
            return most - queued_messages(self._client, model)


def select_images(engine: Engine, scan: Scan, target: Target) -> Iterator[tuple[int, list[ImageRef]]]:
    """Yield the images of a scan in pieces: how many were listed, and which of them are still to be scored."""
    listing = iter(scan)
    while listed := list(islice(listing, LOOKUP_SIZE)):
        yield len(listed), without_done(engine, listed, target)


def cut(images: list[ImageRef], size: int) -> list[list[ImageRef]]:
    """Return the images of jobs of a size; the last one may be smaller."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def without_done(engine: Engine, listed: list[ImageRef], target: Target) -> list[ImageRef]:
    """Return those of the images that are still to be scored, each once."""
    unique = list({ref.uri: ref for ref in listed}.values())
    if target.model_id is None or target.skip == "none":
        return unique
    done = scored_fingerprints(engine, target.model_id, unique, only_ok=target.skip == "ok")
    return [ref for ref in unique if not _is_done(ref, done.get(ref.uri))]


def _is_done(ref: ImageRef, scored: str | None) -> bool:
    """Tell whether what is listed now was scored already.

    Args:
        ref: as listed.
        scored: fingerprint of what was scored; None if there is no verdict.
    """
    if scored is None or not ref.fingerprint:  # it could not be looked at, so nobody knows whether it changed
        return False
    # Of a member of an archive, a list knows nothing but the fingerprint of the archive, see `core.archives`.
    return ref.fingerprint in (scored, scored.partition("@")[0], UNCHANGING)
