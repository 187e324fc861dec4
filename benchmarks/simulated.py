"""A worker whose engine is simulated: for benchmarks of what is around it, and for nothing else.

Nothing is computed, read or decoded. A batch takes ``len(batch) / rate`` seconds of sleep, its scores are random
numbers, and an image is fetched from its name alone. All else is the real worker: this script replaces three names of
``worker.process`` and calls the worker's command line. The third, the store, is the real one with a stopwatch.

    python benchmarks/simulated.py start --gpus none --slots 1
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

import worker.process
from core.images import ImageRef
from core.jobs import Job
from core.manifest import Manifest, read_manifest
from core.settings import Settings
from core.verdicts import Outcome
from db.store import Delivery, RunReport, Store
from model.artifact import digest, write_artifact
from worker.cli import main
from worker.fetch import Fetched

NAME = "simulated"
RATE = "SIMULATED_RATE"  # environment variables; facesieve's own have another prefix
JOURNAL = "SIMULATED_JOURNAL"
BATCH = 32
WEIGHTS = "nothing is in here: the engine of this model is simulated\n"
PIXEL = np.zeros((1, 1, 3), np.uint8)  # nobody looks at it; 224 x 224 of them would only be copied

T = TypeVar("T")


def make_artifact(settings: Settings) -> Manifest:
    """Make an artifact without a network, so that a worker finds a manifest, checks it and registers the model."""

    def make(folder: Path) -> Manifest:
        (folder / "model.keras").write_text(WEIGHTS)
        return Manifest(
            name=NAME,
            format="keras",
            file="model.keras",
            sha256=digest(folder / "model.keras"),
            architecture="imported",
            parameters=0,
            preprocess="card",
            trained=False,
            source="benchmarks/simulated.py",
            created_at=datetime.now(UTC),
            keras_version="none",
        )

    return write_artifact(settings, NAME, make)


class SimulatedPredictor:
    """Sleeps as long as an engine of a fixed rate would take.

    Attributes:
        manifest: of the artifact without a network.
        engine: as it stands in the ledger.
        precision: likewise.
        batch_size: images in a forward pass; ``BATCH`` if that is left to the engine.
    """

    engine = "simulated"
    precision = "none"

    def __init__(self, folder: Path, *, batch_size: int, **_others: Any) -> None:
        """Take what ``model.predictor.load_predictor`` takes; the rate, in images/s, is in the environment."""
        self.manifest = read_manifest(folder)
        self.batch_size = batch_size or BATCH
        self._rate = float(os.environ[RATE])
        self._random = np.random.default_rng()

    def warm_up(self) -> None:
        """Do nothing: a sleep needs no warming."""

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return random scores, each one different, as those of a network are: an index of equal ones is smaller."""
        time.sleep(len(batch) / self._rate)
        return self._random.random(len(batch), np.float32)


class SimulatedFetcher:
    """Makes up what reading and decoding an image would have found."""

    def __init__(self, *_: object, **_others: object) -> None: ...

    def job(self, *_: object) -> AbstractContextManager[None]:
        """Read nothing ahead."""
        return nullcontext()

    def __call__(self, ref: ImageRef, _place: object = None) -> Fetched:
        """Return a digest and a hash that differ between images, as real ones do, and no pixels worth the name."""
        made_up = sha256(ref.uri.encode()).digest()
        return Fetched(ref, (PIXEL,), made_up[16:], 1024, 1024, int.from_bytes(made_up[:8], signed=True))


class TimedStore(Store):
    """The real store; writes one line about each job into the journal."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._journal = Path(os.environ[JOURNAL], str(os.getpid())).open("w", buffering=1)  # noqa: SIM115
        self._begun: tuple[float, ...] = ()

    def begin_job(self, job_id: str, worker: str) -> Delivery:
        """Do what the store does."""
        delivery, self._begun = _timed(lambda: Store.begin_job(self, job_id, worker))
        return delivery

    def save_job(self, job: Job, outcomes: Sequence[Outcome], report: RunReport) -> None:
        """Do what the store does; a save that failed is not written down, and the next try is a new one."""
        _, saved = _timed(lambda: Store.save_job(self, job, outcomes, report))
        print(*self._begun, *saved, len(outcomes), file=self._journal)


def _timed(action: Callable[[], T]) -> tuple[T, tuple[float, float, float]]:
    """Return what the action returns, when it started and ended, and its seconds of CPU in this thread."""
    started, busy = time.time(), time.thread_time()
    found = action()
    return found, (started, time.time(), time.thread_time() - busy)


@dataclass(frozen=True, slots=True)
class Entry:
    """One job in the journal.

    Attributes:
        process: that ran it.
        begin: when booking its begin started, and ended; Unix time.
        save: when saving started, and ended.
        busy: seconds of the process's own CPU in both.
        images: of the job.
    """

    process: int
    begin: tuple[float, float]
    save: tuple[float, float]
    busy: float
    images: int


def read_journal(folder: Path, since: float) -> list[Entry]:
    """Return the jobs that were begun since some moment, in the order in which they were begun."""
    entries = []
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            begun, ready, one, saving, saved, other, images = map(float, line.split())
            entries.append(Entry(int(path.name), (begun, ready), (saving, saved), one + other, int(images)))
    return sorted((entry for entry in entries if entry.begin[0] >= since), key=lambda entry: entry.begin)


def steady_pace(entries: Sequence[Entry]) -> float:
    """Return images/s from when the last process began its first job until the last job was begun.

    All processes are at work throughout. A job that runs across either end counts by its share.
    """
    firsts = {entry.process: entry.begin[0] for entry in reversed(entries)}
    start, end = max(firsts.values()), entries[-1].begin[0]
    if start == end:
        raise RuntimeError(f"{len(entries)} jobs for {len(firsts)} processes: fill the queue with more")
    shares = (
        max(0.0, min(end, entry.save[1]) - max(start, entry.begin[0])) / (entry.save[1] - entry.begin[0])
        for entry in entries
    )
    return sum(share * entry.images for share, entry in zip(shares, entries, strict=True)) / (end - start)


def stopwatch(entries: Sequence[Entry]) -> dict[str, float]:
    """Return how many milliseconds a job spends on what is not scoring."""
    jobs = defaultdict(list)
    for entry in entries:
        jobs[entry.process].append(entry)
    begins = [entry.begin[1] - entry.begin[0] for entry in entries]
    saves = [entry.save[1] - entry.save[0] for entry in entries]
    gaps = [after.begin[0] - before.save[1] for some in jobs.values() for before, after in pairwise(some)]
    return {
        "begin_ms": 1000 * median(begins),
        "save_ms": 1000 * median(saves),
        "save_p95_ms": 1000 * float(np.quantile(saves, 0.95)),
        "between_ms": 1000 * median(gaps),
    }


class MadeUpImages:
    """Names of images that do not exist, where a producer expects a scan of folders.

    Attributes:
        ignored: as of a ``producer.scan.Scan``.
        unlistable: likewise.
        unlistable_count: likewise.
    """

    def __init__(self, folder: str, number: int) -> None:
        self.ignored = self.unlistable_count = 0
        self.unlistable: list[str] = []
        self._folder = folder
        self._number = number

    def __iter__(self) -> Iterator[ImageRef]:
        bits = Random(0).getrandbits  # the quickest there is: the time that it takes would be the producer's
        for index in range(self._number):
            size, modified = bits(21), 17 * 10**17 + bits(56)
            yield ImageRef(f"{self._folder}/{index // 1000:06d}/{index:09d}.jpg", f"{size}-{modified}", size)


if __name__ == "__main__":
    # Fails if the worker no longer has one of these names: nothing is simulated by halves.
    with patch.multiple(worker.process, load_predictor=SimulatedPredictor, Fetcher=SimulatedFetcher, Store=TimedStore):
        main()
