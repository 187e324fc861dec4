"""A worker's sign of life: a small file that its parent rewrites every few seconds, for ``worker check --live``.

It follows progress, not existence: when the event loop last turned, whether jobs wait that nobody takes, how long each
child has been busy. The writer holds a lock on it, which the kernel releases however the writer ends: a file that can
be locked was left behind. Nothing here imports Celery, so that a probe is cheap.

Times are seconds of ``time.monotonic``, which all processes of a host share and which nobody sets.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from core.settings import Settings

BEAT_SECONDS = 5.0
STALE_SECONDS = 45.0
STALL_SECONDS = 20.0  # until a consumer that takes nothing connects anew
MAX_RESTARTS = 2  # that do not help, before the worker stops
READ_TRIES = 3
BUSY_SECONDS = 3600.0  # that any job may run: slow storage must not look like a process that hangs
LOOP_SECONDS = 120.0  # more than the answers that one turn may wait for, each up to `core.broker.ANSWER_SECONDS`


@dataclass(frozen=True, slots=True)
class Child:
    """One child of a worker.

    Attributes:
        pid: of the process.
        job: that it runs; None if it is idle or loads its model.
        since: when the job began.
    """

    pid: int
    job: str | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """What a worker's parent says of itself.

    Attributes:
        node: Celery node name.
        pid: of the parent.
        state: ``starting``, ``working``, ``reconnecting`` (the broker is away: no fault of the worker) or ``stopping``.
        written_at: when it was written.
        turned_at: when the event loop last turned; None before it first did.
        heard_at: when the broker last answered; None before it first did.
        waiting: jobs in the queue when it was last looked.
        stalled_at: since when jobs have waited and none came, though a child is free; None if that is not so.
        last_job_at: when a job last ended; None if none has.
        busy_limit: seconds that a job may run; whoever runs one for longer may hang.
        children: one for each process.
    """

    node: str
    pid: int
    state: str
    written_at: float
    turned_at: float | None
    heard_at: float | None
    waiting: int
    stalled_at: float | None
    last_job_at: float | None
    busy_limit: float
    children: tuple[Child, ...]

    def fault(self, now: float) -> str | None:
        """Return what is wrong in one line, or None.

        Args:
            now: ``time.monotonic()``.
        """
        if not 0 <= now - self.written_at <= STALE_SECONDS:  # one of before the last boot may be in the future
            return f"its sign of life is {now - self.written_at:.0f} s old: it hangs"
        if self.state == "working":
            if self.turned_at is not None and now - self.turned_at > LOOP_SECONDS:
                return f"its event loop has not turned for {now - self.turned_at:.0f} s"
            if self.stalled_at is not None and now - self.stalled_at > STALL_SECONDS * (MAX_RESTARTS + 1):
                return f"{self.waiting} jobs wait, and it has taken none for {now - self.stalled_at:.0f} s"
        for child in self.children:
            if child.since is not None and now - child.since > self.busy_limit:
                return (
                    f"process {child.pid} has run job {child.job} for {now - child.since:.0f} s, "
                    f"longer than the {self.busy_limit:.0f} s that one may take"
                )
        return None

    def ages(self, now: float) -> dict[str, object]:
        """Return it for scripts: with ages in seconds instead of times, which mean nothing on another host."""
        found = asdict(self)
        ages = {
            name.removesuffix("_at") + "_seconds_ago": None if found[name] is None else round(now - found.pop(name), 1)
            for name in ("written_at", "turned_at", "heard_at", "stalled_at", "last_job_at")
        }
        children = [
            {"pid": child.pid, "job": child.job, "busy_seconds": None if child.since is None else now - child.since}
            for child in self.children
        ]
        return (
            {name: value for name, value in found.items() if not name.endswith("_at")} | ages | {"children": children}
        )


class SignFile:
    """Where one worker writes its sign, for as long as it lives."""

    def __init__(self, settings: Settings, node: str) -> None:
        """Claim the file; those that dead workers of this host left are removed.

        Raises:
            OSError: it cannot be written there.
        """
        folder = _folder(settings)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in _files(settings):
            with suppress(OSError), path.open() as left:
                # One that is empty has just been made and is about to be locked.
                if _is_left(left.fileno()) and left.read():
                    path.unlink()
        self._path = folder / f"{node}.json"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, sign: Sign) -> None:
        """Replace what stands there. In place, for the lock is the file's; short enough to be written in one go."""
        text = json.dumps(asdict(sign)).encode() + b"\n"
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def remove(self) -> None:
        """Leave nothing behind: the worker has ended in order."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def read_signs(settings: Settings, node: str | None = None) -> Iterator[Sign]:
    """Yield the signs of the workers that live on this host and share its data directory.

    Args:
        settings: for the data directory.
        node: of one worker only.
    """
    for path in _files(settings):
        with suppress(OSError), path.open() as file:  # gone meanwhile
            sign = None if _is_left(file.fileno()) else _read(file)
            if sign and node in (None, sign.node):
                yield sign


def _read(file: TextIO) -> Sign | None:
    for _ in range(READ_TRIES):
        file.seek(0)
        with suppress(ValueError, KeyError, TypeError):  # being written just now
            fields = json.loads(file.readline())
            return Sign(**fields | {"children": tuple(Child(**child) for child in fields["children"])})
    return None


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "alive"


def _files(settings: Settings) -> list[Path]:
    # Hosts may share a data directory; of another host nobody here can tell.
    ending = f"@{socket.gethostname()}.json"
    return sorted(path for path in _folder(settings).glob("*.json") if path.name.endswith(ending))


def _is_left(file: int) -> bool:
    """Whether nobody holds the lock any more."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
