"""Celery as its guide has it: one task for each picture, a worker with the model loaded, results in the backend.

With ``is_batched``, celery-batches puts 32 tasks together for one forward pass.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from celery import Task as CeleryTask
from celery import group

from contenders import Measured, Task, cores
from core.embedded import EmbeddedBroker

#: The environment of the worker.
BROKER, ARTIFACT, THREADS = "CONTENDER_BROKER", "CONTENDER_ARTIFACT", "CONTENDER_THREADS"
PREFETCHED = 64  # for each process, so that none waits for the broker, and batches fill
START_SECONDS = 300
STOP_SECONDS = 30


def measure(task: Task, processes: int, *, is_batched: bool = False) -> Measured:
    """Send a task for each picture and collect the results."""
    with TemporaryDirectory(prefix="facesieve-celery-") as folder, EmbeddedBroker(Path(folder)) as broker:
        threads = max(1, len(cores()) // processes)
        os.environ |= {BROKER: broker.url, ARTIFACT: str(task.artifact), THREADS: str(threads)}
        from contenders import celery_worker  # it reads the environment

        if is_batched and celery_worker.Batches is None:
            raise SystemExit(
                "celery-batches is not installed; it declares celery<5.7: pip install --no-deps celery-batches"
            )
        score = celery_worker.score_batch if is_batched else celery_worker.score
        with _worker(processes, Path(folder) / "worker.log"):
            _wait_until_ready(celery_worker.ready, processes)
            started = datetime.now(UTC)
            sent = group(score.s(str(path)) for path in task.files).apply_async()
            scores = sent.join_native(timeout=None)  # it looks every half second only: the time is the workers'
            ended = max(result.date_done for result in sent.results)
            return Measured((ended - started).total_seconds(), scores)


@contextmanager
def _worker(processes: int, log: Path) -> Iterator[None]:
    words = [sys.executable, "-m", "celery", "-A", "contenders.celery_worker", "worker", "--pool=prefork"]
    words += [f"--concurrency={processes}", f"--prefetch-multiplier={PREFETCHED}", "--loglevel=WARNING"]
    words += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as worker:
        try:
            yield
        except Exception as error:
            raise SystemExit(f"{error!r}; the worker said: {log.read_text(errors='replace')[-500:]}") from error
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()


def _wait_until_ready(ready: CeleryTask, processes: int) -> None:
    """Return when every process of the pool has loaded the network."""
    seen: set[int] = set()
    while len(seen) < processes:
        asked = group(ready.s() for _ in range(2 * processes)).apply_async()
        seen |= set(asked.join_native(timeout=START_SECONDS))
