"""``producer run``: start what is not running, score the images, and leave nothing running."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from celery import Celery

from core.broker import queue_name, translated
from core.errors import BrokerError, WorkerError
from core.settings import Settings

PING_SECONDS = 1.0
RECHECK_SECONDS = 10.0
STOP_MARGIN_SECONDS = 20.0
ORPHAN_SECONDS = 15.0  # a process dies only when the disk has answered it


class LocalWorker:
    """A worker on this machine for as long as a command runs, started when it is first needed.

    Nothing is started if a worker with the same model is at work already.
    """

    def __init__(self, app: Celery, settings: Settings, model: str, options: Sequence[str] = ()) -> None:
        self._app = app
        self._settings = settings
        self._model = model
        self._options = tuple(options)
        self._log = settings.data_dir / "logs" / f"worker-{os.getpid()}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._checked_at = -math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def ensure(self) -> None:
        """Start the worker unless one runs; raise if it has ended.

        Raises:
            WorkerError: it could not start, or died.
        """
        if self._process is not None:
            if self._process.poll() is not None:
                raise WorkerError(f"worker ended: {self._last_line()} (log: {self._log})")
        elif time.monotonic() - self._checked_at >= RECHECK_SECONDS:
            # Again and again: the worker that was found may belong to another command, and end with it.
            with suppress(BrokerError):  # whoever waits for the broker deals with that
                if not self._is_one_running():
                    self._start()
            self._checked_at = time.monotonic()

    def stop(self) -> None:
        """End the worker that was started here; it finishes its job or hands it back."""
        if self._process is None:
            return
        # A second Ctrl+C must not leave the worker behind: from here on it is only waited for.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self._settings.drain_seconds + STOP_MARGIN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._end_orphans(self._process.pid)
        if self._process.returncode == 0:
            self._log.unlink(missing_ok=True)
        self._process = None

    @staticmethod
    def _end_orphans(group: int) -> None:
        """End the children of a worker that died: they hold the embedded broker's lock, and nobody would stop it."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        with suppress(ProcessLookupError, PermissionError):  # the group is empty, or of zombies on macOS
            while time.monotonic() < deadline:
                os.killpg(group, signal.SIGKILL)
                time.sleep(0.01)

    def _is_one_running(self) -> bool:
        with translated(self._app.conf.broker_url):
            queues = self._app.control.inspect(timeout=PING_SECONDS).active_queues() or {}
        return any(queue["name"] == queue_name(self._model) for found in queues.values() for queue in found)

    def _start(self) -> None:
        self._log.parent.mkdir(exist_ok=True)
        environment = os.environ | self._settings.as_environment()
        with self._log.open("wb") as log:
            # A session of its own: Ctrl+C is for the producer, which then stops the worker in order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker", "start", f"--with-parent={os.getpid()}", *self._options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else "it said nothing"
