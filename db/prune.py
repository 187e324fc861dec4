"""Forget verdicts, in small transactions, so that workers can go on meanwhile.

The books still balance afterwards: before the first one goes, each job is told how many verdicts of its images will be
gone (``job.pruned``). A review is a person's work: images that have one stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, exists, func, select, tuple_, update

from core.errors import UsageError
from core.jobs import Job
from db import schema
from db.doomed import BATCH, DOOMED, Report, Wanted, gather, is_doomed
from db.engine import translated
from db.ledger import chunks, read_ledger, reading

JOBS_IN_BATCH = 20


@dataclass(frozen=True, slots=True)
class Pruned:
    """What has gone.

    Attributes:
        verdicts: number of them; those that a worker replaced meanwhile stay.
        images: number of images that no other verdict and no review is about.
    """

    verdicts: int
    images: int


class Pruning:
    """Verdicts that are about to go.

    Attributes:
        gathered: which ones, for people.
    """

    def __init__(self, connection: Connection, wanted: Wanted, report: Report) -> None:
        self._connection = connection
        self._scan_id = wanted.scan_id
        self.gathered = gather(connection, wanted, report)

    def book(self, report: Report) -> None:
        """Tell each job that is done how many of its images will have no verdict: its own, or a later job's.

        Args:
            report: told of how many images the jobs were looked through.
        """
        job, last, seen = schema.job, "", 0
        with self._connection.begin():
            models = list(self._connection.execute(select(DOOMED.c.model_id).distinct()).scalars())
        query = (
            select(job.c.id, job.c.images, job.c.model_id, job.c.pruned, job.c.payload)
            .where(job.c.status == "done", job.c.model_id.in_(models), job.c.scan_id != (self._scan_id or 0))
            .order_by(job.c.id)
            .limit(JOBS_IN_BATCH)
        )
        while True:
            with self._connection.begin():
                rows = self._connection.execute(query.where(job.c.id > last)).all()
                for row in rows:
                    missing, doomed = self._count({ref.id for ref in Job.unpack(row.payload).images}, row.model_id)
                    if doomed:
                        # What a later job has scored again no longer counts as pruned. If this was done before, and
                        # then cut short, the number is the same again.
                        pruned = min(row.pruned, missing) + doomed
                        self._connection.execute(update(job).where(job.c.id == row.id).values(pruned=pruned))
            if not rows:
                return
            last, seen = rows[-1].id, seen + sum(row.images for row in rows)
            report(seen)

    def delete(self, report: Report) -> Pruned:
        """Delete the verdicts and what is left without them.

        Args:
            report: told how many verdicts are gone.
        """
        last: tuple[bytes, str] | None = None
        verdicts = images = 0
        query = select(DOOMED).order_by(DOOMED.c.image_id, DOOMED.c.model_id).limit(BATCH)
        while True:
            with self._connection.begin():
                after = query if last is None else query.where(tuple_(DOOMED.c.image_id, DOOMED.c.model_id) > last)
                rows = [row._asdict() for row in self._connection.execute(after)]
                if not rows:
                    break
                gone = self._delete(rows)
            last = rows[-1]["image_id"], rows[-1]["model_id"]
            verdicts, images = verdicts + gone.verdicts, images + gone.images
            report(verdicts)
        if self._scan_id is not None:
            self._forget(self._scan_id)
        return Pruned(verdicts, images)

    def _count(self, ids: set[bytes], model_id: str) -> tuple[int, int]:
        """Return how many of these images have no verdict, and how many have a doomed one."""
        verdict, found, doomed = schema.verdict, 0, 0
        for some in chunks(list(ids), 500):
            query = (
                select(func.count(verdict.c.image_id), func.count(DOOMED.c.image_id))
                .select_from(verdict.outerjoin(DOOMED, is_doomed()))
                .where(verdict.c.image_id.in_(some), verdict.c.model_id == model_id)
            )
            row = self._connection.execute(query).one()
            found, doomed = found + row[0], doomed + row[1]
        return len(ids) - found, doomed

    def _delete(self, rows: list[dict[str, Any]]) -> Pruned:
        image, verdict, review = schema.image, schema.verdict, schema.review
        ids = sorted({row["image_id"] for row in rows})
        for some in chunks(ids, 500):
            # Workers write images first, in this order, and then verdicts: they wait here, or have been here before.
            of_some = select(image.c.id).where(image.c.id.in_(some)).order_by(image.c.id)
            self._connection.execute(of_some.with_for_update())
        names = [column.name for column in DOOMED.columns]
        one = delete(verdict).where(*(verdict.c[name] == bindparam(f"its_{name}") for name in names))
        keys = [{f"its_{name}": row[name] for name in names} for row in rows]
        verdicts = self._connection.execute(one, keys).rowcount
        images = 0
        for some in chunks(ids, 500):
            has_verdict = exists().where(verdict.c.image_id == image.c.id)
            has_review = exists().where(review.c.image_id == image.c.id)
            bare = delete(image).where(image.c.id.in_(some), ~has_verdict, ~has_review)
            images += self._connection.execute(bare).rowcount
        return Pruned(verdicts, images)

    def _forget(self, scan_id: int) -> None:
        """Empty the rows of a scan and its jobs. Deleting them would take a look at all verdicts for each job."""
        job, scan = schema.job, schema.scan
        some = select(job.c.id).where(job.c.scan_id == scan_id, job.c.status != "forgotten").limit(BATCH)
        empty_jobs = update(job).where(job.c.id.in_(some)).values(status="forgotten", payload=b"", error=None, pruned=0)
        changed = BATCH
        while changed:
            with self._connection.begin():
                changed = self._connection.execute(empty_jobs).rowcount
        with self._connection.begin():
            empty = update(scan).where(scan.c.id == scan_id).values(status="forgotten", sources="[]")
            self._connection.execute(empty)


@contextmanager
def open_pruning(engine: Engine, wanted: Wanted, report: Report) -> Iterator[Pruning]:
    """Gather the verdicts that are to go; nothing is deleted yet.

    Args:
        engine: of the database.
        wanted: which ones.
        report: with ``missing``, told how many files were looked for.

    Raises:
        UsageError: the scan does not exist or is not over.
    """
    if wanted.scan_id is not None:
        ledger = read_ledger(engine, wanted.scan_id)
        if not ledger.is_complete:
            state = f"{ledger.pending} images are pending" if ledger.pending else "it is being listed"
            raise UsageError(
                f"scan {wanted.scan_id} is not over, {state}: wait, or run `producer cancel {wanted.scan_id}`"
            )
    with translated(engine), engine.connect() as connection:
        try:
            yield Pruning(connection, wanted, report)
        finally:
            connection.invalidate()  # the temporary table goes with it


def count_pruned(engine: Engine, scan_id: int) -> int:
    """Return how many images of a scan have no verdict any more because it was pruned."""
    job = schema.job
    total = select(func.coalesce(func.sum(job.c.pruned), 0)).where(job.c.scan_id == scan_id)
    with translated(engine), reading(engine) as connection:
        return int(connection.execute(total).scalar_one())
