"""Every write to the database. Each public function is one transaction: it happens as a whole or not at all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Engine, case, exists, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from core.errors import MessageError
from core.jobs import Job
from core.manifest import Manifest
from core.verdicts import Outcome, Status
from db import schema
from db.engine import translated
from db.outcomes import OutcomeRows

#: A job in one of these states is over: a message about it has nothing left to do.
OVER = ("done", "failed", "cancelled", "forgotten")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the ledger knows of a job when a worker begins it.

    Attributes:
        is_over: nothing to do: it was done, failed for good or cancelled meanwhile.
        losses: how often a worker died in it before.
        suspect: position of the image that was being decoded at the last death; None if not known.
        crashed: positions that killed a worker twice.
    """

    is_over: bool
    losses: int = 0
    suspect: int | None = None
    crashed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a worker ran a job: by what, how long.

    Attributes:
        worker: Celery node name.
        model_id: of the model that scored it.
        engine: what ran the network.
        precision: of its arithmetic.
        decode_seconds: fetching and decoding, summed over threads.
        predict_seconds: forward passes.
        total_seconds: from the start to just before saving.
    """

    worker: str
    model_id: str
    engine: str
    precision: str
    decode_seconds: float
    predict_seconds: float
    total_seconds: float


class Store:
    """Writes to one database; safe to share between threads, not between processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    # --- the producer's side -------------------------------------------------------------------------------------

    def start_scan(self, sources: Sequence[str], model_name: str, model_id: str | None) -> int:
        """Open a scan and return its number."""
        values = {
            "sources": json.dumps(list(sources)),
            "model_name": model_name,
            "model_id": model_id,
            "status": "listing",
            "started_at": _now(),
            "touched_at": _now(),
        } | dict.fromkeys(("listed", "skipped", "ignored", "unlistable"), 0)
        with translated(self._engine), self._engine.begin() as connection:
            return int(connection.execute(insert(schema.scan).values(values).returning(schema.scan.c.id)).scalar_one())

    def record_listing(self, scan_id: int, jobs: Sequence[Job], *, skipped: int) -> bool:
        """Book what was listed: the images of jobs, which are then queued, and the skipped ones.

        Returns:
            False if the scan was cancelled meanwhile; then nothing is booked and nothing must be sent.
        """
        scan, now = schema.scan, _now()
        listed = sum(len(job.images) for job in jobs) + skipped
        book = (
            update(scan)
            .where(scan.c.id == scan_id, scan.c.status == "listing")
            .values(listed=scan.c.listed + listed, skipped=scan.c.skipped + skipped, touched_at=now)
        )
        queued = [{"id": job.id, "images": len(job.images), "payload": job.pack()} for job in jobs]
        with translated(self._engine), self._engine.begin() as connection:
            if connection.execute(book).rowcount == 0:
                return False
            if queued:
                connection.execute(insert(schema.job).values(scan_id=scan_id, status="queued", queued_at=now), queued)
            return True

    def finish_scan(self, scan_id: int, status: str, *, ignored: int = 0, unlistable: int = 0) -> None:
        """Close the listing as ``listed`` or ``interrupted``; a cancelled scan stays cancelled."""
        scan = schema.scan
        with translated(self._engine), self._engine.begin() as connection:
            connection.execute(
                update(scan)
                .where(scan.c.id == scan_id, scan.c.status == "listing")
                .values(status=status, ignored=ignored, unlistable=unlistable, finished_at=_now())
            )

    def cancel_scan(self, scan_id: int) -> int:
        """Cancel the jobs of a scan that no worker has begun, and its listing. Returns how many jobs."""
        job, scan = schema.job, schema.scan
        with translated(self._engine), self._engine.begin() as connection:
            connection.execute(update(scan).where(scan.c.id == scan_id).values(status="cancelled", finished_at=_now()))
            return connection.execute(
                update(job)
                .where(job.c.scan_id == scan_id, job.c.status.in_(("queued", "failed")))
                .values(status="cancelled", finished_at=_now())
            ).rowcount

    def requeue(self, job_id: str) -> Job | None:
        """Make a failed or lost job wait again, with a clean record, and return it to be sent; None if it is over."""
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            payload = connection.execute(
                update(job)
                .where(job.c.id == job_id, job.c.status.in_(("queued", "running", "failed")))
                .values(status="queued", error=None, losses=0, suspect=None, suspicions=0, queued_at=_now())
                .returning(job.c.payload)
            ).scalar_one_or_none()
        return None if payload is None else Job.unpack(payload)

    # --- the worker's side ---------------------------------------------------------------------------------------

    def register_model(self, manifest: Manifest) -> None:
        """Enter a model. One that is known gets its manifest's thresholds, unless `db threshold` has chosen others."""
        values = manifest.model_dump(
            include={"name", "sha256", "architecture", "preprocess", "trained", "real_above", "generated_below"}
        )
        points = json.dumps(manifest.calibration.operating_points) if manifest.calibration else None
        known = schema.model.c
        row = self._insert(schema.model).values(id=manifest.id, registered_at=_now(), operating_points=points, **values)
        changed = {name: row.excluded[name] for name in ("operating_points", "registered_at")} | {
            name: case((known.thresholds_set_at.is_(None), row.excluded[name]), else_=known[name])
            for name in ("real_above", "generated_below")
        }
        row = row.on_conflict_do_update(index_elements=["id"], set_=changed)
        with translated(self._engine), self._engine.begin() as connection:
            connection.execute(row)

    def begin_job(self, job_id: str, worker: str) -> Delivery:
        """Book that a worker begins a job.

        A job that is found running has lost its worker: whoever stops in order releases it.

        Raises:
            MessageError: the ledger knows no such job.
        """
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            found = select(job, schema.scan.c.status.label("scan_status")).join(schema.scan)
            row = connection.execute(found.where(job.c.id == job_id).with_for_update(of=job)).one_or_none()
            if row is None:
                raise MessageError("the job is not in the ledger")
            if row.scan_status == "cancelled" and row.status not in OVER:
                cancelled = {"status": "cancelled", "finished_at": _now()}
                connection.execute(update(job).where(job.c.id == job_id).values(cancelled))
            if row.scan_status == "cancelled" or row.status in OVER:
                return Delivery(is_over=True)
            is_lost = row.status == "running"
            losses, suspect, suspicions = row.losses + is_lost, row.suspect, row.suspicions
            crashed = set(json.loads(row.crashed or "[]"))
            if suspicions >= 2:  # begun twice, survived never. The losses start anew, as the job has got on.
                crashed.add(suspect)
                losses, suspect, suspicions = 1, None, 0
            connection.execute(
                update(job)
                .where(job.c.id == job_id)
                .values(
                    status="running",
                    deliveries=row.deliveries + 1,
                    losses=losses,
                    suspect=suspect,
                    suspicions=suspicions,
                    crashed=json.dumps(sorted(crashed)) if crashed else None,
                    worker=worker,
                    started_at=_now(),
                )
            )
            return Delivery(False, losses, suspect, frozenset(crashed))

    def postpone_job(self, job_id: str) -> int:
        """Book that a job was delivered to a worker that cannot do it, though another may.

        Returns:
            How often it has been delivered; 0 if the ledger knows no such job, or it is over.
        """
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            return (
                connection.execute(
                    update(job)
                    .where(job.c.id == job_id, job.c.status.not_in(OVER))
                    .values(deliveries=job.c.deliveries + 1)
                    .returning(job.c.deliveries)
                ).scalar_one_or_none()
                or 0
            )

    def release_jobs(self, worker: str) -> int:
        """Book that a worker has handed back whatever it was running: no loss, for it stopped in order.

        Args:
            worker: node name; unique to a process, so nobody else runs these jobs.

        Returns:
            How many jobs wait again.
        """
        return self._release(schema.job.c.worker == worker)

    def release_job(self, job_id: str) -> int:
        """Book that one job is handed back, as ``release_jobs`` does."""
        return self._release(schema.job.c.id == job_id)

    def _release(self, which: ColumnElement[bool]) -> int:
        job, scan = schema.job, schema.scan
        is_cancelled = exists().where(scan.c.id == job.c.scan_id, scan.c.status == "cancelled")
        with translated(self._engine), self._engine.begin() as connection:
            return connection.execute(
                update(job)
                .where(which, job.c.status == "running")
                .values(status=case((is_cancelled, "cancelled"), else_="queued"), suspect=None, suspicions=0)
            ).rowcount

    def suspect_image(self, job_id: str, position: int) -> None:
        """Book which image is decoded next, so that its job's next delivery knows what killed the worker."""
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            suspicions = case((job.c.suspect == position, job.c.suspicions + 1), else_=1)
            connection.execute(update(job).where(job.c.id == job_id).values(suspect=position, suspicions=suspicions))

    def clear_suspect(self, job_id: str) -> None:
        """Book that no image is being decoded any more."""
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            connection.execute(update(job).where(job.c.id == job_id).values(suspect=None, suspicions=0))

    def save_job(self, job: Job, outcomes: Sequence[Outcome], report: RunReport) -> None:
        """Write all verdicts of a job and mark it done, in one transaction. Saving it again changes nothing.

        Raises:
            ValueError: the outcomes are not one for each image of the job.
        """
        if [outcome.ref for outcome in outcomes] != list(job.images):
            raise ValueError(f"job {job.id} has {len(job.images)} images, got {len(outcomes)} outcomes")
        rows = OutcomeRows(outcomes)
        origin = {"model_id": report.model_id, "scan_id": job.scan_id, "job_id": job.id, "scored_at": _now()}
        counts = {f"n_{status}": sum(outcome.status is status for outcome in outcomes) for status in Status}
        # When it was first saved: what counts by time must not count it again.
        now = literal(_now(), schema.job.c.finished_at.type)
        first = case((schema.job.c.status == "done", schema.job.c.finished_at), else_=now)
        done = {"status": "done", "finished_at": first, "error": None, "suspect": None, "suspicions": 0}
        with translated(self._engine), self._engine.begin() as connection:
            rows.write(connection, origin, are_of_faces=job.faces)
            connection.execute(
                update(schema.job).where(schema.job.c.id == job.id).values(**done, **counts, **asdict(report))
            )

    def fail_job(self, job_id: str, error: str) -> None:
        """Mark a job failed for a reason that is not one image's; ``producer retry`` sends it again."""
        job = schema.job
        with translated(self._engine), self._engine.begin() as connection:
            connection.execute(
                update(job)
                .where(job.c.id == job_id, job.c.status.not_in(OVER))
                .values(status="failed", error=error, finished_at=_now())
            )


def _now() -> datetime:
    return datetime.now(UTC)
