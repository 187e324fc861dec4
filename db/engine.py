"""Connections to SQLite and PostgreSQL, and the schema's version. Third-party errors are translated here, once."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.schema import SetColumnComment, SetTableComment

from core.errors import DatabaseBusyError, DatabaseError, SchemaError
from core.settings import Settings, make_data_dir, redact
from db.schema import HEAD, VERSION_TABLE, labelled_verdict, metadata

BUSY_SECONDS = 30.0
#: Of libpq, in seconds, the last in milliseconds. A server whose host is gone says nothing, and the kernel would wait
#: two hours for it; after a minute it is an error like any other.
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_NOT_ALLOWED = "42501"  # PostgreSQL's code of insufficient privilege


def open_engine(settings: Settings) -> Engine:
    """Return an engine whose database has the schema of this program.

    An SQLite file is created and upgraded as needed; a server's schema is changed by ``db upgrade`` alone.

    Raises:
        DatabaseError: the URL is wrong or nothing answers.
        SchemaError: the schema is not this program's.
    """
    engine = make_engine(settings)
    try:
        _check_schema(engine, settings)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _check_schema(engine: Engine, settings: Settings) -> None:
    with translated(engine):
        found = schema_version(engine)
        if found is None and engine.dialect.name == "sqlite":
            upgrade(engine)
        elif found is None:
            raise SchemaError(f"database {redact(settings.sql_url)} has no facesieve tables: run `db upgrade`")
        elif found < HEAD:
            raise SchemaError(f"database schema {found} is older than this program's {HEAD}: run `db upgrade`")
        elif found > HEAD:
            raise SchemaError(f"database schema {found} is newer than this program's {HEAD}: install a newer facesieve")


def make_engine(settings: Settings) -> Engine:
    """Return an engine for the settings' URL; nothing is connected yet.

    Raises:
        DatabaseError: the URL is wrong, or its driver is not installed.
        SettingsError: the data directory, where the SQLite file would be, is not writable.
    """
    if not settings.database_url:
        make_data_dir(settings)
    url = settings.sql_url
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
            raise DatabaseError(
                f"database URL {redact(url)!r:.80} is for {parsed.drivername}: "
                "use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
            )
        if parsed.drivername == "sqlite":
            return _sqlite_engine(url, parsed.database)
        patience = {name: value for name, value in _PATIENCE.items() if name not in parsed.query}
        return create_engine(parsed, pool_pre_ping=True, connect_args=patience)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise DatabaseError(
            f"database URL {redact(url)!r:.80} cannot be read: use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        raise DatabaseError(f"{error.name} is not installed: pip install 'facesieve[postgres]'") from error


def schema_version(engine: Engine) -> str | None:
    """Return the newest migration that the database has had; None if it has no tables of ours."""
    with translated(engine), engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def upgrade(engine: Engine) -> None:
    """Bring the schema to this program's version; does nothing if it is there already.

    Raises:
        DatabaseError: a migration failed; it was rolled back.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    # Two first commands at once: the second waits for the lock, then finds nothing left to do.
    with translated(engine), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(726501)"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.supports_comments:  # not SQLite
            _describe(connection)


def _describe(connection: Connection) -> None:
    """Write the comments of ``db.schema`` into the database: here, so that no migration has to carry them."""
    for table in (*metadata.sorted_tables, labelled_verdict):
        if table is labelled_verdict:
            connection.exec_driver_sql(f"COMMENT ON VIEW {table.name} IS '{table.comment}'")  # ours, without a quote
        else:
            connection.execute(SetTableComment(table))
        for column in table.columns:
            connection.execute(SetColumnComment(column))


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn what SQLAlchemy raises within the block into DatabaseError."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        if getattr(error.orig, "sqlstate", None) == _NOT_ALLOWED:
            reason += (
                ". `db grant` lets a role do its work; the rest, such as `db upgrade`, is for the owner of the tables"
            )
        kind = DatabaseBusyError if isinstance(error, (OperationalError, InterfaceError)) else DatabaseError
        raise kind(f"database {redact(engine.url.render_as_string())} failed: {reason}") from error
    except (SQLAlchemyError, OverflowError) as error:  # the latter: SQLite's driver, of a number that is too large
        raise DatabaseError(f"database {redact(engine.url.render_as_string())} failed: {error}") from error


def _sqlite_engine(url: str, database: str | None) -> Engine:
    if not database or database == ":memory:":
        raise DatabaseError(f"database URL {redact(url)!r:.80} names no file: workers are other processes and need one")
    folder = Path(database).absolute().parent
    if not folder.is_dir():
        raise DatabaseError(f"folder {folder} of the SQLite file does not exist: create it")
    # Transactions are begun below: BEGIN IMMEDIATE takes the write lock at the start, so that two writers wait for
    # each other instead of failing in the middle.
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a crash of the system may cost the last commits
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")  # KiB

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine
