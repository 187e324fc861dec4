"""Starts commands by forking a process that has imported what they import: a run then costs a third of the CPU time.

All else is as if they had been started anew: a session, an environment, a log and a working directory of their own.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = [
    "tests.faults.worker", "worker.app", "model.artifact", "model.predictor", "celery.apps.worker",
    "celery.worker.consumer.tasks", "kombu.transport.redis", "producer.cli", "producer.enqueue", "producer.session",
    "producer.waiting", "producer.progress", "producer.summary", "db.cli", "core.embedded", "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite",
]  # fmt: skip


class Forked:
    """What ``subprocess.Popen`` is, as far as faults need it.

    Attributes:
        pid: of the process.
        args: of the command.
    """

    def __init__(self, process: BaseProcess, args: Sequence[str]) -> None:
        self.pid: int = process.pid or 0
        self.args = args
        self._process = process

    @property
    def returncode(self) -> int | None:
        """Exit code; negative if a signal ended it, None if it lives."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not in time.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Launcher:
    """Starts commands; safe to share between threads."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()  # here and now: with the environment of a run, it would seem to belong to that

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> Forked:
        """Start ``python -m module ...``.

        Args:
            command: as for ``subprocess.Popen``: interpreter, ``-m``, module and its arguments.
            environment: all of it.
            log: file for what it prints.
            folder: working directory, by which it is known to belong to a run.
        """
        process = self._context.Process(target=_become, args=(command[2:], dict(environment), log, folder))
        process.start()
        return Forked(process, command)


def _become(words: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)
