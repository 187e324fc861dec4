"""How fast jobs were, by what ran them: read from the ledger."""

from array import array
from collections import defaultdict
from dataclasses import dataclass
from math import ceil
from statistics import median

from sqlalchemy import Connection, Engine, func, select

from db import schema
from db.engine import translated
from db.ledger import reading
from db.scope import margin_of

#: Of more jobs a sample is read, about so large.
MOST_JOBS = 5000
STAGES = ("total", "decode", "predict")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the jobs of one worker were.

    Attributes:
        engine: what ran the network.
        precision: of its arithmetic.
        worker: Celery node name.
        jobs: how many are done.
        images: in these.
        margin: by how much ``jobs`` may be off, with 95 % confidence, and ``images`` in proportion; 0 if they were
            counted.
        images_per_second: while it ran them.
        seconds: of a job, by stage: the median, and what 95 % of jobs do not exceed. ``decode`` is summed over threads.
    """

    engine: str
    precision: str
    worker: str
    jobs: int
    images: int
    margin: int
    images_per_second: float
    seconds: dict[str, tuple[float, float]]


def read_throughput(
    engine: Engine, *, scan_id: int | None = None, model: str | None = None, is_exact: bool = False
) -> list[Pace]:
    """Return how fast each worker was, the one with the most images first; memory grows by 32 bytes a job that is read.

    Args:
        engine: of the database.
        scan_id: only jobs of this scan.
        model: only jobs that were scored by a model of this name.
        is_exact: never take a sample.
    """
    job = schema.job
    columns = [job.c[f"{stage}_seconds"] for stage in STAGES]
    query = select(job.c.engine, job.c.precision, job.c.worker, job.c.images, *columns).where(
        job.c.status == "done", *(column.is_not(None) for column in columns)
    )
    if model is not None:
        query = query.where(job.c.model_id.in_(select(schema.model.c.id).where(schema.model.c.name == model)))
    found: defaultdict[tuple[str, str, str], array[float]] = defaultdict(lambda: array("d"))
    with translated(engine), reading(engine) as connection:
        share = 1.0 if is_exact else _share(connection, scan_id)
        if share < 1:
            query = query.where(job.c.id < f"{round(share * 16**8):08x}")
        if scan_id is not None:
            query = query.where((job.c.scan_id if share == 1 else job.c.scan_id + 0) == scan_id)
        for some in connection.execution_options(yield_per=1000).execute(query).partitions():
            for row in some:
                found[row[:3]].extend(row[3:])
    width = 1 + len(STAGES)
    paces = (_pace(key, [numbers[start::width] for start in range(width)], share) for key, numbers in found.items())
    return sorted(paces, key=lambda pace: -pace.images)


def _share(connection: Connection, scan_id: int | None) -> float:
    """Return how many of the jobs that are done are to be read. Their ids are random: those below one are a sample."""
    job = schema.job
    done = select(func.count()).select_from(job).where(job.c.status == "done")
    jobs = connection.execute(done if scan_id is None else done.where(job.c.scan_id == scan_id)).scalar_one()
    return min(MOST_JOBS / jobs, 1.0) if jobs else 1.0


def _pace(key: tuple[str, str, str], numbers: "list[array[float]]", share: float) -> Pace:
    engine, precision, worker = key
    images, *stages = numbers
    total = stages[0]
    return Pace(
        engine=engine,
        precision=precision,
        worker=worker,
        jobs=round(len(images) / share),
        images=round(sum(images) / share),
        margin=margin_of(len(images), share),
        images_per_second=sum(images) / max(sum(total), 1e-9),
        seconds={
            stage: (median(seconds), sorted(seconds)[ceil(0.95 * len(seconds)) - 1])
            for stage, seconds in zip(STAGES, stages, strict=True)
        },
    )
