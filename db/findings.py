"""What a report tells of a scan, read from the database. Aggregated there: a scan of millions takes no memory here."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, case, func, literal_column, select

from core.verdicts import Status
from db import schema
from db.engine import translated
from db.filters import VIEW
from db.gallery import Picture, read_pictures
from db.labels import shown_by_model
from db.ledger import Ledger, read_ledger, reading

BINS = 40
MOST_FOLDERS = 200
MOST_EXAMPLES = 5
MOMENTS = 60
#: Of labels, by score.
ORDER = ("generated", "unsure", "real")


@dataclass(frozen=True, slots=True)
class ScoringModel:
    """A model that scored images of the scan, and by what.

    Attributes:
        id: digest of its name and whatever decides a score.
        name: of the artifact.
        architecture: of the network.
        trained: false if its weights are random.
        real_above: ``p_real`` above this is labelled real.
        generated_below: ``p_real`` at or below this is labelled generated.
        thresholds_set_at: when somebody chose them; None if they are the artifact's own.
        runs: engine, precision and number of images, the most images first.
    """

    id: str
    name: str
    architecture: str
    trained: bool
    real_above: float
    generated_below: float
    thresholds_set_at: datetime | None
    runs: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast the scan went; an image counts as evenly spread over the run of its job.

    Attributes:
        started_at: of the first job that is done.
        seconds: from then to the end of the last one.
        rates: images per second in each of ``MOMENTS`` equal parts of that time.
    """

    started_at: datetime
    seconds: float
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """The images that failed in one way.

    Attributes:
        status: the way.
        images: how many.
        examples: URI and reason of at most ``MOST_EXAMPLES``.
    """

    status: str
    images: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a report tells, but for the pictures themselves.

    Attributes:
        ledger: the books of the scan.
        sources: what was scanned.
        models: that scored it, the one with the most images first.
        labels: how many images have each label, in the order of their scores. These are the verdicts that are still
            this scan's: later ones may have scored some again.
        histogram: how many scores lie in each of ``BINS`` equal parts of [0, 1], by label.
        failures: by status, the most frequent first, likewise.
        folders: the ``MOST_FOLDERS`` largest: ``folder``, ``images``, ``generated``, ``unsure``, ``real``, ``failed``
            and ``mean`` (of ``p_real``, None if nothing was scored).
        n_folders: how many there are in all.
        throughput: None if no job is done.
        pictures: of the gallery, each once.
    """

    ledger: Ledger
    sources: list[str]
    models: list[ScoringModel]
    labels: dict[str, int]
    histogram: dict[str, list[int]]
    failures: list[Failures]
    folders: list[dict[str, Any]]
    n_folders: int
    throughput: Throughput | None
    pictures: list[Picture]


def read_findings(engine: Engine, scan_id: int, *, gallery: int) -> Findings:
    """Read what a report tells of a scan.

    Args:
        engine: of the database.
        scan_id: which scan.
        gallery: pictures in each part of the gallery.

    Raises:
        UsageError: there is no such scan.
    """
    ledger = read_ledger(engine, scan_id)
    with translated(engine), reading(engine) as connection:
        sources = connection.execute(select(schema.scan.c.sources).where(schema.scan.c.id == scan_id)).scalar_one()
        models = _models(connection, scan_id)
        thresholds = {value for model in models for value in (model.generated_below, model.real_above)}
        histogram = _histogram(connection, scan_id, models)
        labels = {label: sum(counts) for label, counts in histogram.items()}
        failures = _failures(connection, scan_id)
        n_images = sum(labels.values()) + sum(one.images for one in failures)
        folders, n_folders = _folders(connection, scan_id, n_images)
        return Findings(
            ledger=ledger,
            sources=json.loads(sources),
            models=models,
            labels=labels,
            histogram=histogram,
            failures=failures,
            folders=folders,
            n_folders=n_folders,
            throughput=_throughput(connection, scan_id),
            pictures=read_pictures(connection, scan_id, thresholds, gallery) if gallery else [],
        )


def _models(connection: Connection, scan_id: int) -> list[ScoringModel]:
    job, model = schema.job, schema.model
    images = func.sum(job.c.images).label("images")
    query = (
        select(model, job.c.engine, job.c.precision, images)
        .join(model, model.c.id == job.c.model_id)
        .where(job.c.scan_id == scan_id, job.c.status == "done")
        .group_by(*model.c, job.c.engine, job.c.precision)
        .order_by(images.desc())
    )
    rows, runs = {}, Counter[tuple[str, str, str]]()
    for row in connection.execute(query):
        rows[row.id] = row
        runs[row.id, str(row.engine), str(row.precision)] += int(row.images)
    names = set(ScoringModel.__slots__) - {"runs"}
    return [
        ScoringModel(
            **{name: getattr(row, name) for name in names},
            runs=tuple((engine, precision, n) for (id_, engine, precision), n in runs.most_common() if id_ == row.id),
        )
        for row in rows.values()
    ]


def _histogram(connection: Connection, scan_id: int, models: list[ScoringModel]) -> dict[str, list[int]]:
    if not models:
        return {}
    verdict = schema.verdict
    label = shown_by_model(verdict, models).label("label")
    part = case((verdict.c.p_real >= 1, BINS - 1), else_=func.floor(verdict.c.p_real * BINS)).label("part")
    query = (
        select(label, part, func.count().label("n"))
        .where(verdict.c.scan_id == scan_id, verdict.c.p_real.is_not(None))
        .group_by(label, part)
    )
    found: dict[str, list[int]] = {}
    for name, index, number in connection.execute(query):
        found.setdefault(name, [0] * BINS)[int(index)] = number
    return dict(sorted(found.items(), key=lambda item: ORDER.index(item[0].partition(" ")[0])))


def _failures(connection: Connection, scan_id: int) -> list[Failures]:
    verdict = schema.verdict
    failed = (verdict.c.scan_id == scan_id, verdict.c.p_real.is_(None))  # a range of the index, and a small one
    images = func.count().label("images")
    counts = select(verdict.c.status, images).where(*failed).group_by(verdict.c.status)
    found = []
    for status, number in connection.execute(counts.order_by(images.desc(), verdict.c.status)).all():
        examples = (
            select(schema.image.c.uri, verdict.c.reason)
            .join(schema.image, schema.image.c.id == verdict.c.image_id)
            .where(*failed, verdict.c.status == status)
            .limit(MOST_EXAMPLES)
        )
        shown = tuple((uri, reason) for uri, reason in connection.execute(examples))
        found.append(Failures(status, number, shown))
    return found


def _folders(connection: Connection, scan_id: int, n_images: int) -> tuple[list[dict[str, Any]], int]:
    # What is left of a URI without the characters behind its last slash, in words that both databases know.
    folder = func.rtrim(VIEW.c.uri, func.replace(VIEW.c.uri, "/", "")).label("folder")
    images = func.count().label("images")

    def labelled(label: str) -> Any:
        return func.sum(case((VIEW.c.label.startswith(label), 1), else_=0)).label(label)

    query = (
        select(
            folder,
            images,
            *(labelled(label) for label in ("generated", "unsure", "real")),
            func.sum(case((VIEW.c.status != str(Status.OK), 1), else_=0)).label("failed"),
            func.avg(VIEW.c.p_real).label("mean"),
            func.count().over().label("folders"),  # counted before the limit
        )
        .where(_all_of(connection, scan_id, n_images))
        .group_by(folder)
        .order_by(images.desc(), folder)
        .limit(MOST_FOLDERS)
    )
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return rows, rows[0]["folders"] if rows else 0


def _all_of(connection: Connection, scan_id: int, images: int) -> ColumnElement[bool]:
    """Test for all verdicts of a scan, of which there are so many, where whole rows are read."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(select(func.max(literal_column("rowid"))).select_from(schema.verdict)).scalar() or 0
        if images * 10 > rows:
            # The index on scores is of no use: it would fetch each row from elsewhere. All of them, in their own order,
            # take a fifth of the time.
            return VIEW.c.scan_id + 0 == scan_id
    return VIEW.c.scan_id == scan_id


def _throughput(connection: Connection, scan_id: int) -> Throughput | None:
    job = schema.job
    of_scan = (job.c.scan_id == scan_id, job.c.status == "done", job.c.started_at.is_not(None))
    start, end = connection.execute(
        select(func.min(job.c.started_at), func.max(job.c.finished_at)).where(*of_scan)
    ).one()
    if start is None:
        return None
    seconds = max((end - start).total_seconds(), 1e-3)
    rates = [0.0] * MOMENTS
    runs = select(job.c.started_at, job.c.finished_at, job.c.images).where(*of_scan)
    for started, finished, images in connection.execution_options(yield_per=1000).execute(runs):
        first = (started - start).total_seconds() / seconds * MOMENTS
        last = min(max((finished - start).total_seconds() / seconds * MOMENTS, first + 1e-6), MOMENTS)
        first = min(first, last - 1e-6)
        for index in range(int(first), min(int(last) + 1, MOMENTS)):
            share = (min(index + 1, last) - max(index, first)) / (last - first)
            rates[index] += images * share / (seconds / MOMENTS)
    return Throughput(start, seconds, tuple(rates))
