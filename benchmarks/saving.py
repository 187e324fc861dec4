"""Processes that save jobs as workers do, all at once."""

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import uuid4

import numpy as np

from core.images import ImageRef
from core.jobs import Job
from core.manifest import Manifest
from core.settings import load_settings
from core.verdicts import Outcome, Status
from db.engine import open_engine
from db.store import RunReport, Store

WAIT_SECONDS = 300
PASSES = ("new", "again")


def made_up_manifest(name: str) -> Manifest:
    """Return the manifest of a model that does not exist."""
    return Manifest(
        name=name,
        format="keras",
        file="model.keras",
        sha256=name.encode().hex().ljust(64, "0"),
        architecture="imported",
        parameters=0,
        preprocess="card",
        trained=True,
        source="a benchmark",
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
        keras_version="3",
        generated_below=0.4,
        real_above=0.6,
    )


MODEL, OLD_MODEL = made_up_manifest("faces"), made_up_manifest("old-faces")


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be saved.

    Attributes:
        url: of the database.
        job_size: images in a job.
        jobs: of each writer.
        writers: processes that save at once.
    """

    url: str
    job_size: int
    jobs: int
    writers: int


def save(load: Load) -> dict[str, float]:
    """Save jobs of images that the database does not know, then jobs of the same images with other scores.

    Jobs are booked and outcomes made beforehand; the processes begin together.

    Returns:
        Verdicts per second, of all writers together, by pass: ``new`` and ``again``.
    """
    context = multiprocessing.get_context("spawn")  # as workers start: nothing of this process is shared
    barrier, results = context.Barrier(load.writers), context.Queue()
    processes = [context.Process(target=_save, args=(load, barrier, results)) for _ in range(load.writers)]
    for process in processes:
        process.start()
    times = [results.get(timeout=WAIT_SECONDS) for _ in processes]
    for process in processes:
        process.join()
    verdicts = load.job_size * load.jobs * load.writers
    return {name: verdicts / (max(of[name][1] for of in times) - min(of[name][0] for of in times)) for name in PASSES}


def _save(load: Load, barrier: Barrier, results: Any) -> None:
    engine = open_engine(load_settings(database_url=load.url))
    store = Store(engine)
    store.register_model(MODEL)
    report = RunReport("worker@bench", MODEL.id, "openvino", "bf16", 1.0, 1.0, 1.5)
    scan = store.start_scan(["/new"], MODEL.name, MODEL.id)
    outcomes = list(_outcomes(load))
    times = {}
    for name in PASSES:
        jobs = [Job(uuid4().hex, scan, MODEL.name, tuple(of.ref for of in some), MODEL.id) for some in outcomes]
        store.record_listing(scan, jobs, skipped=0)
        for job in jobs:
            store.begin_job(job.id, report.worker)
        barrier.wait(WAIT_SECONDS)
        started = time.monotonic()  # the same clock in all processes
        for job, some in zip(jobs, outcomes, strict=True):
            store.save_job(job, some, report)
        times[name] = started, time.monotonic()
        outcomes = [[replace(of, p_real=of.p_real and 1 - of.p_real) for of in some] for some in outcomes]
    results.put(times)
    engine.dispose()


def _outcomes(load: Load) -> Iterator[list[Outcome]]:
    rng = np.random.default_rng()
    folder = f"/new/{uuid4().hex}"
    for number in range(load.jobs):
        scores = rng.random(load.job_size).tolist()
        yield [
            _outcome(f"{folder}/{number:04}/{index:09}.jpg", index, score, rng) for index, score in enumerate(scores)
        ]


def _outcome(uri: str, index: int, score: float, rng: np.random.Generator) -> Outcome:
    ref = ImageRef(uri, f"{100_000 + index}-{int(rng.integers(16 * 10**17, 17 * 10**17))}", 100_000 + index)
    if index % 64 == 63:
        return Outcome(ref, Status.TRUNCATED, None, "the file ends before the image does", rng.bytes(16))
    return Outcome(ref, Status.OK, score, "", rng.bytes(16), 1280, 960, int(rng.integers(-(2**63), 2**63 - 1)))
