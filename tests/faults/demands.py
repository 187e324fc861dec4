"""What is demanded of a run in the end, and what is kept of it."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, select

from core.verdicts import Status
from db import schema
from db.ledger import every_scan, latest_scan, reading, verify_scan
from tests.faults.observer import Course, Trial
from tests.faults.probe import idle_workers
from tests.faults.scene import Scene

VERIFY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What became of a run.

    Attributes:
        seconds: from its start to the end of the last check.
        images: that were there.
        lost: of these, without a verdict.
        duplicated: verdicts beyond one for each image; the primary key allows none.
        wrong: images whose status is not the expected one, by what they have.
        stuck: workers that lived in the end but took no jobs any more.
        redelivered: how often a job was begun again.
        producer_exits: exit codes of the producers, in their order; negative if a signal ended it.
        worker_exits: exit codes of workers that ended without being told to.
        restarts: how often a service manager had to start a worker again.
        trials: of each fault, in the order of their times.
        complaints: what should not have happened; empty if all is well.
    """

    seconds: float
    images: int
    lost: int
    duplicated: int
    wrong: dict[str, int]
    stuck: int
    redelivered: int
    producer_exits: list[int]
    worker_exits: list[int]
    restarts: int
    trials: list[Trial]
    complaints: list[str]


@dataclass(frozen=True, slots=True)
class Count:
    """What the verdicts say of the images of a run: see ``Findings``."""

    lost: int
    duplicated: int
    wrong: dict[str, int]

    def complaints(self) -> list[str]:
        """Return one line for each thing that should not be."""
        found = [
            f"{number} images are {what}" for what, number in (("lost", self.lost), ("there twice", self.duplicated))
        ]
        wrong = [f"{number} images {change}" for change, number in self.wrong.items()]
        return [line for line in [*found, *wrong] if not line.startswith("0 ")]


def observe(scene: Scene) -> Findings:
    """Follow a run to its end, check everything, and stop it."""
    started = time.monotonic()
    course = Course(scene)
    course.follow()
    scan_id = latest_scan(scene.engine)
    idle = idle_workers(scene)
    if idle:
        scene.complaints.append(f"{len(idle)} workers live but take no jobs")
    count = count_verdicts(scene.engine, scene.expected)
    scene.complaints += count.complaints()
    for scan in every_scan(scene.engine):
        scene.complaints += [f"scan {scan}: {problem}" for problem in verify_scan(scene.engine, scan)]
    if code := scene.site.start("db", "verify", str(scan_id), "--complete").wait(VERIFY_SECONDS):
        scene.complaints.append(f"db verify exited with {code}")
    scene.stop()
    return Findings(
        seconds=round(time.monotonic() - started, 1),
        images=len(scene.expected),
        lost=count.lost,
        duplicated=count.duplicated,
        wrong=count.wrong,
        stuck=len(idle),
        redelivered=course.redelivered,
        producer_exits=course.producer_exits,
        worker_exits=scene.exits,
        restarts=scene.restarts,
        trials=course.trials,
        complaints=scene.complaints,
    )


def count_verdicts(engine: Engine, expected: Mapping[str, Status]) -> Count:
    """Compare the verdicts in a database with the statuses that images must have, by their paths."""
    image, verdict = schema.image.c, schema.verdict.c
    rows: dict[str, list[str]] = {name: [] for name in expected}
    with reading(engine) as connection:
        for uri, status in connection.execute(
            select(image.uri, verdict.status).join_from(schema.image, schema.verdict)
        ):
            if uri in rows:
                rows[uri].append(status)
    changes = Counter(
        f"{expected[name]} -> {status}"
        for name, some in rows.items()
        for status in some[:1]
        if status != expected[name]
    )
    return Count(
        lost=sum(not some for some in rows.values()),
        duplicated=sum(len(some) - 1 for some in rows.values() if some),
        wrong=dict(changes),
    )
