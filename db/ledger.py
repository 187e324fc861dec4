"""The ledger: where every listed image of a scan is. Progress, verification and retries are all read from here."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, select

from core.errors import UsageError
from core.jobs import Job
from core.manifest import faces_name
from core.verdicts import Status
from db import schema
from db.engine import translated

#: A producer that gives no sign of life for so long, while it should be listing, is gone.
SILENCE = timedelta(seconds=60)
MOST_ERRORS = 10
FAILURES = tuple(status for status in Status if status is not Status.OK)
#: `db prune --scan` leaves the bare rows of a scan, so that its number and its messages mean nothing else later.
_IS_KEPT = schema.scan.c.status != "forgotten"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books of one scan, in images.

    ``listed = skipped + ok + failed + queued + running + undelivered + cancelled`` always holds.

    Attributes:
        scan_id: which scan.
        scan_status: listing, listed, interrupted or cancelled.
        model: name of the model that was asked for.
        listed: images found.
        skipped: of these, not sent: a verdict was there already, or listed twice.
        ignored: files passed over because nobody asked for them; not in ``listed``.
        unlistable: folders, and lines of lists, that could not be listed; nobody knows what is in them.
        ok: scored.
        failed: images without a score, by status.
        queued: waiting in Redis.
        running: in a job that a worker has begun.
        undelivered: in jobs that failed as a whole; ``producer retry`` sends them again.
        cancelled: in jobs that were cancelled.
        errors: the most frequent ones of failed jobs, with how many jobs each.
        seconds: from the first job's start to the latest start or end of one; 0 if none has started.
        started_at: of the scan.
    """

    scan_id: int
    scan_status: str
    model: str
    listed: int
    skipped: int
    ignored: int
    unlistable: int
    ok: int
    failed: dict[str, int]
    queued: int
    running: int
    undelivered: int
    cancelled: int
    seconds: float
    started_at: datetime
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def scored(self) -> int:
        """Images with a verdict of this scan, failures included."""
        return self.ok + sum(self.failed.values())

    @property
    def pending(self) -> int:
        """Images that a worker has yet to finish."""
        return self.queued + self.running

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.scan_status != "listing" and not self.pending

    @property
    def imbalance(self) -> int:
        """Listed images that the books cannot account for; 0 if all is well."""
        return self.listed - self.skipped - self.scored - self.pending - self.undelivered - self.cancelled


def latest_scan(engine: Engine) -> int:
    """Return the number of the newest scan.

    Raises:
        UsageError: there is none.
    """
    with translated(engine), reading(engine) as connection:
        found = connection.execute(select(func.max(schema.scan.c.id)).where(_IS_KEPT)).scalar()
    if found is None:
        raise UsageError("there is no scan yet: begin one with `producer enqueue` or `producer run`")
    return int(found)


def every_scan(engine: Engine) -> list[int]:
    """Return the numbers of all scans, oldest first."""
    with translated(engine), reading(engine) as connection:
        return list(connection.execute(select(schema.scan.c.id).where(_IS_KEPT).order_by(schema.scan.c.id)).scalars())


def read_ledger(engine: Engine, scan_id: int) -> Ledger:
    """Add up the books of a scan, from one consistent view of the database.

    Raises:
        UsageError: there is no such scan.
    """
    job = schema.job
    counts = [func.coalesce(func.sum(job.c[f"n_{status}"]), 0).label(f"n_{status}") for status in Status]
    by_status = (
        select(job.c.status, func.sum(job.c.images).label("images"), *counts)
        .where(job.c.scan_id == scan_id)
        .group_by(job.c.status)
    )
    times = select(func.min(job.c.started_at), func.max(job.c.finished_at), func.max(job.c.started_at)).where(
        job.c.scan_id == scan_id
    )
    errors = (
        select(job.c.error, func.count())
        .where(job.c.scan_id == scan_id, job.c.status == "failed")
        .group_by(job.c.error)
        .order_by(func.count().desc())
        .limit(MOST_ERRORS)
    )
    with translated(engine), reading(engine) as connection:
        scan = _scan_row(connection, scan_id)
        rows = {row.status: row for row in connection.execute(by_status)}
        started, finished, last_started = connection.execute(times).one()
        reasons = {row.error: row[1] for row in connection.execute(errors)}
    end = max(filter(None, (finished, last_started)), default=None)
    images = {status: int(row.images) for status, row in rows.items()}
    done = rows.get("done")
    return Ledger(
        scan_id=scan_id,
        scan_status=_scan_status(scan),
        model=scan.model_name,
        listed=scan.listed,
        skipped=scan.skipped,
        ignored=scan.ignored,
        unlistable=scan.unlistable,
        ok=int(done.n_ok) if done else 0,
        failed={str(s): n for s in FAILURES if done and (n := int(getattr(done, f"n_{s}")))},
        queued=images.get("queued", 0),
        running=images.get("running", 0),
        undelivered=images.get("failed", 0),
        cancelled=images.get("cancelled", 0),
        seconds=(end - started).total_seconds() if started and end else 0.0,
        started_at=scan.started_at,
        errors=reasons,
    )


def verify_scan(engine: Engine, scan_id: int) -> list[str]:
    """Check the books of a scan against the verdicts themselves.

    Returns:
        One line for each thing that is wrong; empty if every listed image is accounted for.

    Raises:
        UsageError: there is no such scan.
    """
    ledger = read_ledger(engine, scan_id)
    problems = []
    if ledger.imbalance:
        problems.append(f"{ledger.imbalance} of {ledger.listed} listed images are in no job")
    job = schema.job
    counted = reduce(add, (job.c[f"n_{status}"] for status in Status))
    with translated(engine), reading(engine) as connection:
        done = select(job, counted.label("counted")).where(job.c.scan_id == scan_id, job.c.status == "done")
        for row in connection.execution_options(yield_per=100).execute(done):
            sent = Job.unpack(row.payload)
            if row.counted != row.images or row.images != len(sent.images):
                problems.append(f"job {row.id}: {len(sent.images)} images sent, {row.counted} counted as done")
            missing, written = _count_verdicts(connection, sent, row.model_id)
            if missing > row.pruned:  # fewer, if later scans have scored some again
                problems.append(f"job {row.id}: {missing - row.pruned} of {row.images} images have no verdict")
            problems += [
                f"job {row.id}: {written[status]} verdicts are {status}, {getattr(row, f'n_{status}')} were counted"
                for status in Status
                if written[status] > getattr(row, f"n_{status}")  # fewer, if later scans have scored some again
            ]
    return problems


def has_pending_jobs(engine: Engine, scan_id: int) -> bool:
    """Tell whether a job of a scan waits or runs; cheap enough to be asked several times a second."""
    job = schema.job
    pending = select(job.c.id).where(job.c.scan_id == scan_id, job.c.status.in_(("queued", "running"))).limit(1)
    with translated(engine), reading(engine) as connection:
        return connection.execute(pending).first() is not None


def stuck_jobs(engine: Engine, scan_id: int, held: Collection[str], *, failed: bool) -> list[str]:
    """Return the jobs of a scan that will not finish by themselves.

    Args:
        engine: of the database.
        scan_id: which scan.
        held: the jobs whose messages Redis holds; any other one that is not over is lost.
        failed: whether to return the failed ones, too.

    Raises:
        UsageError: there is no such scan.
    """
    job = schema.job
    with translated(engine), reading(engine) as connection:
        _scan_row(connection, scan_id)
        rows = connection.execute(
            select(job.c.id, job.c.status).where(
                job.c.scan_id == scan_id, job.c.status.in_(("queued", "running", *(["failed"] if failed else [])))
            )
        )
        return [row.id for row in rows if row.status == "failed" or row.id not in held]


def longest_job_seconds(engine: Engine, artifact: str) -> float | None:
    """Return the longest run among the latest 1,000 jobs of an artifact, by name; None if none was ever done."""
    job, model = schema.job, schema.model
    latest = (
        select(job.c.total_seconds)
        .join(model, model.c.id == job.c.model_id)
        .where(model.c.name.in_((artifact, faces_name(artifact))), job.c.status == "done")
        .order_by(job.c.finished_at.desc())
        .limit(1000)
        .subquery()
    )
    with translated(engine), reading(engine) as connection:
        return connection.execute(select(func.max(latest.c.total_seconds))).scalar()


def reading(engine: Engine) -> Connection:
    """Return a connection that only reads: on SQLite it takes no write lock, and sees one state throughout."""
    if engine.dialect.name == "sqlite":
        return engine.connect().execution_options(sqlite_begin="DEFERRED")
    return engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _scan_row(connection: Connection, scan_id: int) -> Row[tuple[Any, ...]]:
    row = connection.execute(select(schema.scan).where(schema.scan.c.id == scan_id, _IS_KEPT)).one_or_none()
    if row is None:
        raise UsageError(f"there is no scan {scan_id}: see `producer status`")
    return row


def _scan_status(scan: Row[tuple[Any, ...]]) -> str:
    is_gone = scan.status == "listing" and datetime.now(UTC) - scan.touched_at > SILENCE
    return "interrupted" if is_gone else str(scan.status)


def _count_verdicts(connection: Connection, job: Job, model_id: str) -> tuple[int, Counter[str]]:
    """Return how many images of a job have no verdict, and how many of its own verdicts have each status."""
    verdict = schema.verdict
    ids = {ref.id for ref in job.images}
    found, written = 0, Counter[str]()
    for some in chunks(list(ids), 500):
        rows = connection.execute(
            select(verdict.c.status, verdict.c.job_id).where(
                verdict.c.model_id == model_id, verdict.c.image_id.in_(some)
            )
        ).all()
        found += len(rows)
        written.update(row.status for row in rows if row.job_id == job.id)
    return len(ids) - found, written


def chunks(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    """Cut a list into pieces: databases bound the number of values in one statement."""
    return (items[start : start + size] for start in range(0, len(items), size))
