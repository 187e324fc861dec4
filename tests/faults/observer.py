"""The course of one run: faults at their times, and what the ledger shows meanwhile."""

import time
from collections import Counter
from dataclasses import dataclass
from random import Random

from sqlalchemy import select

from core.errors import DatabaseError
from db import schema
from db.engine import translated
from db.ledger import reading
from tests.faults.catalogue import FAULTS, Heal
from tests.faults.plan import Event
from tests.faults.scene import Scene
from tests.faults.servers import NotYetError

POLL_SECONDS = 0.15
#: All must be well so long after the last fault; on a quiet machine it takes a few seconds.
DEADLINE_SECONDS = 150.0
#: Whoever ran a producer that failed runs it again, after so long.
AGAIN_SECONDS = 2.0
#: ... and looks so often for scans whose producer is gone.
RETRY_SECONDS = 5.0

#: Of each job: its scan, its state and how often a worker has begun it.
Books = dict[str, tuple[int, str, int]]


@dataclass(slots=True)
class Trial:
    """What became of one fault.

    Attributes:
        fault: its name.
        lasted: seconds until it was healed.
        recovery: seconds from then until a job was saved that was begun after it; None if no job was left to begin.
        repair: seconds from then until all jobs that were running when it came were over; None if none was.
    """

    fault: str
    lasted: float = 0.0
    recovery: float | None = None
    repair: float | None = None


class _Watch:
    """Keeps the time of one fault."""

    def __init__(self, event: Event, books: Books) -> None:
        self.event = event
        self.trial = Trial(event.fault)
        self._before = books
        self._running = [job for job, (_, status, _) in books.items() if status == "running"]
        self._since = self._injected = time.monotonic()
        self.heal: Heal | None = None
        self.is_healed = False

    def note_healed(self, books: Books) -> None:
        """The time counts from now on: work that went on during the fault is no recovery."""
        self.is_healed, self._since, self._before = True, time.monotonic(), books
        self.trial.lasted = round(self._since - self._injected, 2)

    def look(self, books: Books) -> None:
        """Note what the ledger shows now."""
        if not self.is_healed:
            return
        passed = round(time.monotonic() - self._since, 2)
        if self.trial.recovery is None and any(
            status == "done" and begun > self._before.get(job, (0, "", 0))[2]
            for job, (_, status, begun) in books.items()
        ):
            self.trial.recovery = passed
        if self.trial.repair is None and self._running and all(books[job][1] != "running" for job in self._running):
            self.trial.repair = passed


class Course:
    """One run from its first job to its last.

    Attributes:
        producer_exits: exit codes of the producers, in their order; negative if a signal ended one.
    """

    def __init__(self, scene: Scene) -> None:
        self.producer_exits: list[int] = []
        self._scene = scene
        self._books: Books = {}
        self._watches: list[_Watch] = []
        self._upcoming = list(scene.plan.events)
        self._begun_at: float | None = None
        self._ended_at: float | None = None
        self._retried_at = 0.0
        self._is_listed = False

    def follow(self) -> None:
        """Return when the work is done, or when it takes too long."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._is_over():
            now = time.monotonic()
            self._read()
            self._play(now)
            for watch in self._watches:
                watch.look(self._books)
            self._scene.supervise()
            if self._begun_at is not None and self._is_disturbed:
                deadline = now + DEADLINE_SECONDS
            elif now > deadline:
                self._scene.complaints.append(f"not done {DEADLINE_SECONDS:g} s after the last fault: {self._tell()}")
                return
            time.sleep(POLL_SECONDS)

    @property
    def trials(self) -> list[Trial]:
        """What became of the faults."""
        return [watch.trial for watch in self._watches]

    @property
    def redelivered(self) -> int:
        """How often a job was begun again."""
        return sum(max(0, begun - 1) for _, _, begun in self._books.values())

    @property
    def _is_disturbed(self) -> bool:
        """Whether a fault is there or still to come."""
        return bool(self._upcoming) or not all(watch.is_healed for watch in self._watches)

    def _read(self) -> None:
        """Read the ledger, if the database answers."""
        job, engine = schema.job.c, self._scene.engine
        try:
            with translated(engine), reading(engine) as connection:
                rows = connection.execute(select(job.id, job.scan_id, job.status, job.deliveries)).all()
        except DatabaseError:
            return
        self._books = {row.id: (row.scan_id, row.status, row.deliveries) for row in rows}

    def _play(self, now: float) -> None:
        """Do what is due: heal first, for a server cannot be stopped twice."""
        if self._begun_at is None:
            if not any(begun for _, _, begun in self._books.values()):
                return
            self._begun_at = now
        for watch in self._watches:
            if not watch.is_healed and now - self._begun_at >= watch.event.at + watch.event.lasts:
                try:
                    if watch.heal is not None:
                        watch.heal()
                except NotYetError:  # as long as another fault keeps it from starting
                    continue
                watch.note_healed(self._books)
        while self._upcoming and now - self._begun_at >= self._upcoming[0].at:
            event = self._upcoming.pop(0)
            if any(watch.event.fault == event.fault and not watch.is_healed for watch in self._watches):
                continue  # it is there already
            watch = _Watch(event, self._books)
            watch.heal = FAULTS[event.fault].inject(self._scene, Random(event.seed))
            self._watches.append(watch)

    def _is_over(self) -> bool:
        """Tell whether all is done; start what a user would start, if something is left to do."""
        producer, now = self._scene.producer, time.monotonic()
        if producer.poll() is None or self._is_disturbed:
            self._ended_at = None
            return False
        if self._ended_at is None:
            self._ended_at = now
            self.producer_exits.append(producer.returncode)
            # 1: all was listed, but jobs have failed as a whole
            self._is_listed |= producer.returncode in (0, 1)
        unfinished = [scan for scan, status, _ in self._books.values() if status != "done"]
        if self._is_listed and not unfinished:
            return True
        if now - self._ended_at > AGAIN_SECONDS:
            if not self._is_listed:
                self._scene.start_producer("enqueue", self._scene.images, "--wait")
            elif now - self._retried_at > RETRY_SECONDS:
                self._retried_at = now
                self._scene.start_producer("retry", str(min(unfinished)))
        return False

    def _tell(self) -> str:
        """Say where things stand."""
        states = Counter((scan, status) for scan, status, _ in self._books.values())
        return ", ".join(f"{number} jobs of scan {scan} {status}" for (scan, status), number in sorted(states.items()))
