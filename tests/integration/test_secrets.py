"""Passwords and keys that are wrong: no command quotes them when it says so."""

from pathlib import Path

import pytest

from tests.hushed import Secrets
from tests.integration.commands import Site
from tests.integration.producing import make_files
from tests.tls import Authority, guarded_valkey

WRONG = {
    "password": ("broker_url", "rediss://facesieve:{secret}@localhost:{port}/0?ssl_ca_certs={authority}", 5),
    "port": ("broker_url", "redis://facesieve:{secret}@127.0.0.1:1/0", 5),
    "no port": ("broker_url", "redis://facesieve:{secret}@127.0.0.1:port/0", 3),
    "scheme": ("broker_url", "amqp://facesieve:{secret}@127.0.0.1/0", 3),
    "parameter": ("broker_url", "redis://127.0.0.1:1/0?password={secret}&db=x", 3),
    "database": ("database_url", "postgresql+psycopg://me:{secret}@127.0.0.1:1/x", 6),
    "database parameter": ("database_url", "postgresql://127.0.0.1:1/x?password={secret}&odd=1", 6),
    "database port": ("database_url", "postgresql+psycopg://me:{secret}@127.0.0.1:port/x", 6),
    "database scheme": ("database_url", "mysql://me:{secret}@127.0.0.1/x", 6),
    "key": ("signing_key", "{secret},short", 3),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_secret_that_is_wrong_is_not_shown(case: str, tmp_path: Path) -> None:
    name, value, code = WRONG[case]
    secrets, site = Secrets(), Site(tmp_path)
    faces = make_files(tmp_path / "faces", 1)
    command = ["producer", "enqueue", faces, "--json"] if name == "broker_url" else ["db", "stats", "--json"]
    secret = secrets.broker.replace("/@", "%2F%40")
    data = {"data_dir": str(tmp_path / "data")}

    if "{port}" in value:
        authority = Authority(tmp_path / "tls")
        with guarded_valkey(tmp_path / "valkey", authority, "facesieve", secrets.database) as port:
            value = value.format(secret=secret, port=port, authority=authority.file)
            done = site.run("worker", "start", "--verbose", **data, **{name: value})
    else:
        done = site.run(*command, **data, **{name: value.format(secret=secret)})

    assert done.returncode == code, done.stderr
    assert "error: " in done.stderr
    assert secrets.found_in(done.stdout + done.stderr) == []
    assert secrets.found_below(tmp_path) == {}
