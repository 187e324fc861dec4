"""A guarded installation: all of it works, and nothing that it prints, logs, stores or shows has a secret in it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from core.broker import connect, make_app
from core.jobs import Job
from core.settings import load_settings
from db import schema
from db.engine import open_engine
from db.grants import grant
from tests.e2e.conftest import Site, processes_of, write_images
from tests.hushed import Secrets
from tests.tls import Authority, guarded_valkey

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def secrets() -> Secrets:
    return Secrets()


@pytest.fixture
def broker_url(tmp_path_factory: pytest.TempPathFactory, secrets: Secrets) -> Iterator[str]:
    """A Valkey that wants the password, over TLS."""
    authority = Authority(tmp_path_factory.mktemp("tls") / "ours")
    with guarded_valkey(tmp_path_factory.mktemp("guarded"), authority, "facesieve", secrets.broker) as port:
        password = quote(secrets.broker, safe="")
        yield f"rediss://facesieve:{password}@localhost:{port}/0?ssl_ca_certs={authority.file}"


@pytest.fixture
def roles(postgresql_url: str, secrets: Secrets) -> Iterator[dict[str, str]]:
    """The database's URL for each duty, as a role that may do just that, with a password."""
    engine = open_engine(load_settings(database_url=postgresql_url))
    names = {duty: f"{duty}_{uuid4().hex}" for duty in ("producer", "worker", "reader")}
    for duty, role in names.items():
        with engine.begin() as connection:
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        grant(engine, role, [duty])
    yield {
        duty: engine.url.set(username=role, password=secrets.database).render_as_string(hide_password=False)
        for duty, role in names.items()
    }
    with engine.begin() as connection:
        for role in names.values():
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    engine.dispose()


@pytest.fixture
def guarded_site(
    make_site: Callable[..., Site], broker_url: str, roles: dict[str, str], secrets: Secrets, tmp_path: Path
) -> Site:
    """An installation whose URLs stand in files."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "facesieve_broker_url").write_text(f"{broker_url}\n")
    (folder / "facesieve_database_url").write_text(f"{roles['worker']}\n")
    return make_site(FACESIEVE_SECRETS_DIR=str(folder), FACESIEVE_SIGNING_KEY=secrets.key)


def test_everything_works_with_least_privilege_and_secrets_stay_secret(
    guarded_site: Site, broker_url: str, roles: dict[str, str], postgresql_url: str, secrets: Secrets, tmp_path: Path
) -> None:
    site = guarded_site
    write_images(tmp_path / "faces", 12)
    (tmp_path / "faces" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    printed = [site.ok("worker", "check", "--json")]
    with site.worker("--verbose"):
        site.environment["FACESIEVE_DATABASE_URL"] = roles["producer"]
        printed.append(site.ok("producer", "enqueue", tmp_path / "faces", "--wait", "--json"))
        printed.append(site.ok("producer", "run", tmp_path / "faces", "--json"))
        printed.append(site.ok("producer", "retry"))
        site.environment["FACESIEVE_DATABASE_URL"] = roles["reader"]
        printed.append(site.ok("db", "verify", "--all", "--json"))
        printed.append(site.ok("db", "report", "--out", tmp_path / "report.html"))
        titles = "\n".join(processes_of(site.data_dir).values())
        inspect = make_app(broker_url).control.inspect(timeout=5)
        replies = json.dumps([inspect.conf(), inspect.stats(), inspect.report(), inspect.active()], default=str)
    assert '"ok": 12' in printed[4]
    assert "worker" in titles
    assert "visibility_timeout" in replies
    assert secrets.found_in("\n".join(printed)) == []
    assert secrets.found_in(titles) == []
    assert secrets.found_in(replies) == []
    assert secrets.found_below(tmp_path) == {}
    assert secrets.found_in(everything_in_the_ledger(postgresql_url)) == []
    with connect(broker_url) as client:
        stored = [client.dump(key) or b"" for key in client.scan_iter("*")]
    assert secrets.found_in(b"".join(stored)) == []


def everything_in_the_ledger(url: str) -> str:
    """Return all rows of all tables as text, messages unpacked."""
    engine = open_engine(load_settings(database_url=url))
    with engine.connect() as connection:
        rows = {name: connection.execute(select(table)).all() for name, table in schema.metadata.tables.items()}
    engine.dispose()
    assert rows["job"]
    return str(rows) + str([Job.unpack(row.payload) for row in rows["job"]])
