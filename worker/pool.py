"""Celery's prefork pool, which says why a child died, and waits before the next one if they die again and again.

The pool starts a new child at once. The wait is the child's: the parent, which it is forked from, knows how often
children have died since a job last ended.
"""

import os
import time
from collections.abc import Sequence
from signal import SIGKILL, Signals
from typing import Any

from celery.concurrency import prefork
from celery.concurrency.asynpool import AsynPool

from core.logs import say

FREE_DEATHS = 2  # that are followed by a new child at once: the crashed image of a job takes two
FIRST_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 60.0  # less than any visibility timeout that facesieve chooses


class Deaths:
    """What the parent counts.

    Attributes:
        number: of children that died since a job last ended.
        last_job_at: when a job last ended, in seconds of ``time.monotonic``; None if none has.
    """

    number = 0
    last_job_at: float | None = None

    @property
    def wait_seconds(self) -> float:
        """Seconds that the next child waits before it starts: doubled with each death, within bounds."""
        if self.number <= FREE_DEATHS:
            return 0.0
        return min(FIRST_WAIT_SECONDS * 2.0 ** min(self.number - FREE_DEATHS - 1, 30), MAX_WAIT_SECONDS)

    def count(self, deaths: int) -> None:
        """Note that children died."""
        self.number += deaths
        if deaths and self.wait_seconds:
            say("backing_off", deaths=self.number, seconds=self.wait_seconds)

    def forget(self) -> None:
        """Note that a job ended: whoever died before, it was not for a lasting reason."""
        self.number = 0
        self.last_job_at = time.monotonic()


#: A process is one node. Its children see what it was when they were forked.
deaths = Deaths()


class _Children(AsynPool):  # type: ignore[misc]  # Celery has no types
    def _join_exited_workers(self, shutdown: bool = False) -> Sequence[int]:
        dead = [child for child in self._pool if child.exitcode is not None]
        lost = [(child, self._job_of(child.pid)) for child in dead]
        joined: Sequence[int] = super()._join_exited_workers(shutdown)
        for child, job in lost:
            if not shutdown and not getattr(child, "_controlled_termination", False):
                say("child_lost", child=child.index, pid=child.pid, cause=_cause(child.exitcode), job=job or "none")
        if not shutdown:
            deaths.count(len(lost))
        return joined

    def on_job_ready(self, job: Any, i: Any, obj: Any, inqW_fd: int) -> None:  # noqa: N803 - Celery's names
        super().on_job_ready(job, i, obj, inqW_fd)
        deaths.forget()

    def _job_of(self, pid: int) -> str | None:
        return next((job.correlation_id for job in self._cache.values() if pid in job.worker_pids()), None)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]  # Celery has no types
    """Celery's, with these children."""

    Pool = _Children

    def on_stop(self) -> None:
        """Wait for the running jobs, not for children that still load or back off: they would see the end only then."""
        if self._pool is not None:
            up = set(self._pool._fileno_to_inq.values())  # have said so; only these get jobs
            for child in self._pool._pool:
                if child not in up and child.is_alive():
                    os.kill(child.pid, SIGKILL)
        super().on_stop()


def _cause(exit_code: int) -> str:
    return f"signal {Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
