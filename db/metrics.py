"""What a monitoring system is told, read from the ledger: what was ever finished, what is open, how fast it is now.

The first reading looks at all jobs, each later one at those that were finished since and at those that are open: a job
that is done does not change any more. Nothing is kept between two programs, so an exporter may run anywhere.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Engine, Row, Select, case, func, select

from core.verdicts import Status
from db import schema
from db.engine import translated
from db.exposed import EDGES, MOST_MODELS, MOST_WORKERS, OTHERS, PLAIN, STATES, WINDOW, label
from db.ledger import reading
from db.throughput import STAGES

#: Numbers by their labels' values.
Samples = dict[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Durations:
    """One histogram.

    Attributes:
        counts: of jobs between the edges; the last one of those above all.
        total: sum of their seconds.
    """

    counts: list[float]
    total: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What the ledger has told at one moment.

    Attributes:
        plain: numbers of ``PLAIN``, by the metric's name.
        durations: the histograms of ``SECONDS``.
    """

    plain: dict[str, Samples]
    durations: dict[tuple[str, ...], Durations]


class LedgerReader:
    """Reads the ledger again and again; not to be shared between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: Of jobs that were finished before ``_until``: sums by metric and labels, and the last job of each model.
        self._settled: Samples = {}
        self._last: dict[str, float] = {}
        self._until: datetime | None = None
        #: What the ledger last said, and what was told.
        self._counted: Samples = {}
        self._shown: Samples = {}

    def read(self) -> Reading:
        """Read, from one consistent view of the database.

        Raises:
            DatabaseError: it does not answer.
        """
        began, now = time.perf_counter(), datetime.now(UTC)
        horizon = max(now - WINDOW, self._until or now - WINDOW)  # this machine's clock may have been put back
        with translated(self._engine), reading(self._engine) as connection:
            models = _read_models(connection)
            names = {row.id: label(row.name) for row in models}
            settled, last = _read_finished(connection, names, self._until, horizon)
            recent, latest = _read_finished(connection, names, horizon, None)
            waiting = _read_open(connection)
            paces = _read_paces(connection, now - WINDOW)
        self._settled, self._until = _add(self._settled, settled), horizon
        for some in (last, latest):
            self._last.update(some)
        plain: dict[str, Samples] = {metric.name: {} for metric in PLAIN}
        plain["facesieve_last_job_timestamp_seconds"] = {(name,): moment for name, moment in self._last.items()}
        plain["facesieve_model_info"] = {_info(row): 1.0 for row in models}
        known = {*names.values(), *(label(row.model_name) for row in waiting)}
        _tell_open(plain, waiting, known, now)
        _tell_paces(plain, paces)
        counted = self._never_less(_add(_zeros(known), self._settled, recent, _losses(waiting)))
        durations = _split(counted, plain)
        plain["facesieve_read_seconds"][()] = time.perf_counter() - began
        return Reading(plain, durations)

    def _never_less(self, sums: Samples) -> Samples:
        """A counter that fell would look like one that began anew, and all it has counted like new.

        It may fall when `producer retry` gives a job a clean record, or when a job that two workers ran ends otherwise.
        """
        self._shown = {
            key: self._shown.get(key, value) + max(value - self._counted.get(key, value), 0)
            for key, value in sums.items()
        }
        self._counted = sums
        return self._shown


def _read_models(connection: Connection) -> "list[Row[Any]]":
    model = schema.model
    return list(connection.execute(select(model).order_by(model.c.registered_at.desc()).limit(MOST_MODELS)))


def _read_finished(
    connection: Connection, names: dict[str, str], since: datetime | None, until: datetime | None
) -> tuple[Samples, dict[str, float]]:
    """Return sums over the jobs that were done in some time, and when each model's last one was."""
    job = schema.job
    # Only what was done has seconds, also when `db prune` has emptied it since.
    bounds: list[ColumnElement[bool]] = [job.c.total_seconds.is_not(None), job.c.finished_at.is_not(None)]
    if since is not None:
        bounds.append(job.c.finished_at >= since)
    if until is not None:
        bounds.append(job.c.finished_at < until)
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    last: dict[str, float] = {}
    for row in connection.execute(_grouped(bounds)):
        name = names.get(row.model_id, OTHERS)
        last[name] = max(last.get(name, 0.0), row.last.timestamp())
        sums["losses", name] += int(row.losses)
        for status in Status:
            sums["images", name, status] += int(getattr(row, f"n_{status}"))
        for stage in STAGES:
            sums["jobs", name, stage, str(getattr(row, f"{stage}_slot"))] += row.jobs
            sums["seconds", name, stage] += getattr(row, f"{stage}_seconds") or 0.0
    return sums, last


def _grouped(bounds: Iterable[ColumnElement[bool]]) -> Select[Any]:
    """Return the query that adds up jobs by their model and the slots of the histograms that they fall into."""
    job = schema.job
    summed = [
        job.c.losses,
        *(job.c[f"n_{status}"] for status in Status),
        *(job.c[f"{stage}_seconds"] for stage in STAGES),
    ]
    slots = [_slot(job.c[f"{stage}_seconds"]).label(f"{stage}_slot") for stage in STAGES]
    found = select(job.c.model_id, job.c.finished_at, *summed, *slots).where(*bounds).subquery()
    keys = [found.c.model_id, *(found.c[f"{stage}_slot"] for stage in STAGES)]
    totals = [func.sum(found.c[column.name]).label(column.name) for column in summed]
    return select(*keys, func.count().label("jobs"), func.max(found.c.finished_at).label("last"), *totals).group_by(
        *keys
    )


def _slot(seconds: Column[Any]) -> ColumnElement[int]:
    return case(*((seconds <= edge, number) for number, edge in enumerate(EDGES)), else_=len(EDGES))


def _read_open(connection: Connection) -> "list[Row[Any]]":
    """Return the jobs that are open, added up by scan and status; one index holds all that is asked for."""
    job, scan = schema.job, schema.scan
    grouped = (
        select(
            job.c.scan_id,
            job.c.status,
            func.count().label("jobs"),
            func.sum(job.c.images).label("images"),
            func.sum(job.c.losses).label("losses"),
            func.min(job.c.queued_at).label("oldest"),
        )
        .where(schema.IS_OPEN)
        .group_by(job.c.scan_id, job.c.status)
        .subquery()
    )
    columns = [column for column in grouped.c if column.name != "scan_id"]
    return list(connection.execute(select(scan.c.model_name, *columns).join_from(grouped, scan)))


def _read_paces(connection: Connection, since: datetime) -> "list[Row[Any]]":
    job = schema.job
    keys = (job.c.engine, job.c.precision, job.c.worker)
    query = select(*keys, func.sum(job.c.images).label("images"))
    return list(
        connection.execute(query.where(job.c.finished_at >= since, job.c.total_seconds.is_not(None)).group_by(*keys))
    )


def _zeros(models: Iterable[str]) -> Samples:
    """Return counters that nothing was counted in: a rate needs the one before the first failure, too."""
    names = list(models)
    return {("images", name, str(status)): 0.0 for name in names for status in Status} | {
        ("losses", name): 0.0 for name in names
    }


def _losses(rows: "Iterable[Row[Any]]") -> Samples:
    sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for row in rows:
        sums["losses", label(row.model_name)] += int(row.losses)
    return sums


def _tell_open(plain: dict[str, Samples], rows: "Iterable[Row[Any]]", models: Iterable[str], now: datetime) -> None:
    pending, running, jobs, ages = (
        plain[f"facesieve_{name}"] for name in ("images_pending", "images_in_flight", "jobs", "queue_age_seconds")
    )
    for name in models:
        for samples in (pending, running, ages):
            samples[name,] = 0.0
        jobs.update({(name, state): 0.0 for state in STATES})
    for row in rows:
        name = label(row.model_name)
        jobs[name, row.status] += row.jobs
        if row.status != "failed":
            pending[name,] += int(row.images)
        if row.status == "running":
            running[name,] += int(row.images)
        if row.status == "queued":
            ages[name,] = max(ages[name,], (now - row.oldest).total_seconds())


def _tell_paces(plain: dict[str, Samples], rows: "Iterable[Row[Any]]") -> None:
    engines: defaultdict[tuple[str, ...], float] = defaultdict(float)
    workers: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for row in rows:
        pace = int(row.images) / WINDOW.total_seconds()
        engines[label(row.engine or ""), label(row.precision or "")] += pace
        workers[label(row.worker or ""),] += pace
    fastest = sorted(workers.items(), key=itemgetter(1), reverse=True)
    if rest := sum(pace for _, pace in fastest[MOST_WORKERS:]):
        fastest = [*fastest[:MOST_WORKERS], ((OTHERS,), rest)]
    plain["facesieve_engine_images_per_second"] = engines
    plain["facesieve_worker_images_per_second"] = dict(fastest)


def _info(row: "Row[Any]") -> tuple[str, ...]:
    return (*map(label, (row.name, row.id, row.architecture, row.preprocess)), str(row.trained).lower())


def _split(sums: Samples, plain: dict[str, Samples]) -> dict[tuple[str, ...], Durations]:
    """Put counters where they belong, and return the histograms."""
    durations: dict[tuple[str, ...], Durations] = {}
    for (what, *labels), value in sums.items():
        match what:
            case "images":
                plain["facesieve_images_total"][tuple(labels)] = value
            case "losses":
                plain["facesieve_job_losses_total"][tuple(labels)] = value
            case "seconds":
                counts = [sums.get(("jobs", *labels, str(slot)), 0.0) for slot in range(len(EDGES) + 1)]
                durations[tuple(labels)] = Durations(counts, value)
    return durations


def _add(*some: Samples) -> Samples:
    total: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for sums in some:
        for key, value in sums.items():
            total[key] += value
    return total
