"""Least privilege: what a role of PostgreSQL needs to produce, work, read, review, or watch, and no more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Table, text

from core.errors import DatabaseError, UsageError
from db import schema
from db.engine import translated


@dataclass(frozen=True, slots=True)
class Privilege:
    """Something that may be done with a table, or with some of its columns.

    Attributes:
        act: SELECT, INSERT, UPDATE or DELETE.
        table: name of the table or view.
        columns: to which it is confined; empty means all of them, and those of later versions.
    """

    act: str
    table: str
    columns: tuple[str, ...] = ()


def _all_but(table: Table, *left_out: str) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if column.name not in left_out)


_VIEW = schema.labelled_verdict.name
_READS = ("model", "scan", "job", "image", "verdict", _VIEW)
_READER = tuple(Privilege("SELECT", table) for table in (*schema.metadata.tables, _VIEW))

#: By what a role is for. The tables belong to whoever runs `db upgrade`, which is the only one who may do the rest.
DUTIES: dict[str, tuple[Privilege, ...]] = {
    # Writes down what it lists and sends. What a job became, a producer only resets for a retry.
    "producer": (
        *(Privilege("SELECT", table) for table in _READS),
        Privilege("INSERT", "scan"),
        Privilege(
            "UPDATE", "scan", ("listed", "skipped", "ignored", "unlistable", "status", "touched_at", "finished_at")
        ),
        Privilege("INSERT", "job"),
        Privilege("UPDATE", "job", ("status", "error", "losses", "suspect", "suspicions", "queued_at", "finished_at")),
    ),
    # Writes results. It makes no jobs, and cannot change what one asks for, which `producer retry` would sign and send.
    "worker": (
        # Also what it only writes: PostgreSQL wants that of a statement that inserts or else updates.
        *(Privilege("SELECT", table) for table in ("model", "scan", "job", "image", "verdict", "face")),
        *(Privilege("INSERT", table) for table in ("model", "image", "verdict", "face")),
        Privilege("UPDATE", "model", ("real_above", "generated_below", "operating_points", "registered_at")),
        Privilege("UPDATE", "job", _all_but(schema.job, "id", "scan_id", "images", "pruned", "queued_at", "payload")),
        Privilege("UPDATE", "image", _all_but(schema.image, "id")),
        Privilege("UPDATE", "verdict", _all_but(schema.verdict, "image_id", "model_id")),
        Privilege("UPDATE", "face", _all_but(schema.face, "image_id", "model_id", "number")),
        Privilege("DELETE", "face"),  # of an image that is scored again
    ),
    "reader": _READER,
    # `db review`: what people say is added, and an undo takes it away again.
    "reviewer": (
        *_READER,
        Privilege("INSERT", "review"),
        Privilege("DELETE", "review"),
    ),
    # `db metrics`: numbers, but neither the name of a file nor what is found in one.
    "metrics": (
        Privilege("SELECT", "model"),
        Privilege("SELECT", "scan", _all_but(schema.scan, "sources")),
        Privilege("SELECT", "job", _all_but(schema.job, "error", "payload")),
    ),
}


def grant(engine: Engine, role: str, duties: Sequence[str]) -> None:
    """Let a role do what these duties need, and nothing else of what it may have been granted before.

    Args:
        engine: of the database, as the owner of its tables.
        role: that exists; who can connect as it is the administrator's concern.
        duties: keys of ``DUTIES``, at least one.

    Raises:
        UsageError: the database is SQLite, or no such duty or role can be granted to.
        DatabaseError: this is not the owner of the tables.
    """
    statements = grant_statements(engine, role, duties)
    with translated(engine), engine.begin() as connection:
        _check_roles(connection, role)
        for statement in statements:
            # no_parameters: a percent sign is part of the name.
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def grant_statements(engine: Engine, role: str, duties: Sequence[str]) -> list[str]:
    """Return what ``grant`` does, as SQL.

    Raises:
        UsageError: the database is SQLite, or there is no such duty.
        DatabaseError: it does not answer, or has no tables of ours.
    """
    if engine.dialect.name != "postgresql":
        raise UsageError("SQLite has no roles: who may read or write the file is up to its permissions (chmod)")
    unknown = [duty for duty in duties if duty not in DUTIES]
    if unknown or not duties:
        raise UsageError(f"--as {', '.join(unknown) or 'nothing'}: it must be of {', '.join(DUTIES)}")
    if not role or "\0" in role:
        raise UsageError(f"{role!r:.80} cannot be the name of a role")
    with translated(engine), engine.connect() as connection:
        database, namespace = connection.execute(
            text(
                "SELECT current_database(), (SELECT nspname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE pg_class.oid = to_regclass(:table))"
            ),
            {"table": schema.VERSION_TABLE},
        ).one()
    if namespace is None:
        raise DatabaseError(f"database {database} has no facesieve tables: run `db upgrade`")
    return list(_statements(database, namespace, role, {item: None for duty in duties for item in DUTIES[duty]}))


def _statements(database: str, namespace: str, role: str, wanted: dict[Privilege, None]) -> Iterator[str]:
    whom, home = _quoted(role), _quoted(namespace)
    tables = [schema.VERSION_TABLE, *schema.metadata.tables, _VIEW]
    sequences = [f"{home}.{_quoted(name)}" for name in ("scan_id_seq", "review_id_seq")]
    yield f"REVOKE ALL ON {', '.join(f'{home}.{_quoted(table)}' for table in tables)} FROM {whom};"
    yield f"REVOKE ALL ON SEQUENCE {', '.join(sequences)} FROM {whom};"
    yield f"GRANT CONNECT ON DATABASE {_quoted(database)} TO {whom};"
    yield f"GRANT USAGE ON SCHEMA {home} TO {whom};"
    yield f"GRANT SELECT ON {home}.{_quoted(schema.VERSION_TABLE)} TO {whom};"
    for item in wanted:
        columns = f" ({', '.join(map(_quoted, item.columns))})" if item.columns else ""
        yield f"GRANT {item.act}{columns} ON {home}.{_quoted(item.table)} TO {whom};"
        if item.act == "INSERT" and item.table in ("scan", "review"):  # they count their rows
            yield f"GRANT USAGE ON SEQUENCE {home}.{_quoted(f'{item.table}_id_seq')} TO {whom};"


def _check_roles(connection: Connection, role: str) -> None:
    """Refuse what would change nothing: a grant by another than the owner, or to one who may do everything anyway."""
    found = connection.execute(
        text(
            "SELECT owner.rolname AS owner, current_user AS me, pg_has_role(owner.oid, 'USAGE') AS is_owner,"
            " role.rolname AS role, pg_has_role(role.oid, owner.oid, 'USAGE') AS is_above"
            " FROM pg_class JOIN pg_roles owner ON owner.oid = relowner LEFT JOIN pg_roles role ON role.rolname = :role"
            " WHERE pg_class.oid = to_regclass(:table)"
        ),
        {"role": role, "table": schema.VERSION_TABLE},
    ).one()
    if found.role is None:
        raise UsageError(f"there is no role {role!r:.80}: let the administrator CREATE ROLE it, with LOGIN")
    if not found.is_owner:
        raise DatabaseError(
            f"{found.me} cannot grant: the tables are owned by {found.owner}, run `db grant` as that role"
        )
    if found.is_above:
        raise UsageError(
            f"role {role!r:.80} is a superuser, or has the rights of {found.owner}, who owns the tables: it may do "
            "everything, whatever is granted. Use another one"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
