"""Short ways to make what the tests of this folder write and compare."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine

from core.images import ImageRef
from core.jobs import Job
from core.manifest import Manifest
from core.verdicts import Outcome, Status
from db.store import RunReport, Store


def refs(count: int, prefix: str = "/faces/", start: int = 0) -> list[ImageRef]:
    """Return images whose names end in their numbers."""
    return [ImageRef(f"{prefix}{number:05}.jpg", "10-1", 10) for number in range(start, start + count)]


def job_of(images: Sequence[ImageRef], scan_id: int, model: str = "card") -> Job:
    """Return a job with a new id."""
    return Job(uuid4().hex, scan_id, model, tuple(images))


def scored(ref: ImageRef, p_real: float = 0.9) -> Outcome:
    """Return the outcome of an image that was scored."""
    return Outcome(ref, Status.OK, p_real, "", b"\1" * 16, 640, 480)


def failed(ref: ImageRef, status: Status = Status.TRUNCATED) -> Outcome:
    """Return the outcome of an image that could not be scored."""
    return Outcome(ref, status, reason=f"it is {status}")


def manifest(name: str = "card", **changes: Any) -> Manifest:
    """Return the manifest of a model; each name has weights of its own."""
    content = {
        "name": name,
        "format": "keras",
        "file": "model.keras",
        "sha256": name.encode().hex().ljust(64, "0")[:64],
        "architecture": "card-resnet",
        "parameters": 1,
        "preprocess": "card",
        "trained": True,
        "source": "a test",
        "created_at": datetime(2025, 1, 1, tzinfo=UTC),
        "keras_version": "3",
    }
    return Manifest.model_validate(content | changes)


def report(model: Manifest, seconds: float = 1.0) -> RunReport:
    """Return how a worker ran a job."""
    return RunReport("worker@host", model.id, "tensorflow", "float32", 0.5, 0.4, seconds)


class Books:
    """A scan in the ledger, and a worker that does with its jobs what it is told.

    Attributes:
        store: of the database.
        model: that scores.
        scan_id: of the scan.
    """

    def __init__(self, engine: Engine, model: Manifest) -> None:
        self.store = Store(engine)
        self.model = model
        self.scan_id = self.store.start_scan(["/faces"], model.name, model.id)

    def queue(self, images: Sequence[ImageRef]) -> Job:
        """Book a job."""
        job = job_of(images, self.scan_id, self.model.name)
        assert self.store.record_listing(self.scan_id, [job], skipped=0)
        return job

    def run(self, job: Job, outcomes: Sequence[Outcome] | None = None) -> None:
        """Begin a job and save its outcomes; all its images are real unless told otherwise."""
        self.store.begin_job(job.id, "worker@host")
        self.store.save_job(job, outcomes or [scored(ref) for ref in job.images], report(self.model))

    def save(self, outcomes: Sequence[Outcome]) -> Job:
        """Book a job of these outcomes and run it."""
        job = self.queue([outcome.ref for outcome in outcomes])
        self.run(job, outcomes)
        return job


def write(engine: Engine, *statements: Any) -> None:
    """Change the database behind the store's back."""
    connection: Connection
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
