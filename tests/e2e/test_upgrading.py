"""A cluster is upgraded one process at a time: messages and schemas of two releases meet."""

import os
import zlib
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from core.broker import TASK_NAME, make_app, open_broker, queue_name
from core.jobs import MESSAGE_VERSIONS
from db import schema
from db.engine import make_engine
from db.ledger import read_ledger
from tests.e2e.conftest import MODEL, Site, wait_for, write_images
from tests.integration.test_migrations import upgrade_to

pytestmark = pytest.mark.tensorflow

NEXT = max(MESSAGE_VERSIONS) + 1
#: A worker of the next release reads one version more.
NEWER = f"""
import core.jobs
core.jobs.MESSAGE_VERSIONS = (*core.jobs.MESSAGE_VERSIONS, {NEXT})
"""
#: One that is soon tired of what it cannot read.
IMPATIENT = """
import worker.process, worker.tasks
worker.process.MAX_MEETINGS = 2
worker.tasks.REQUEUE_SECONDS = 0.1
"""


def message(paths: list[Path], scan_id: int, **changes: Any) -> dict[str, Any]:
    """A message as the first release wrote it, but for the changes."""
    images = [[str(path), "1-1", path.stat().st_size] for path in paths]
    return {"version": 1, "id": uuid4().hex, "scan_id": scan_id, "model": MODEL, "images": images} | changes


def send(site: Site, *payloads: dict[str, Any]) -> None:
    """Put messages into the queue, whatever they say."""
    with open_broker(site.settings) as url:
        app = make_app(url)
        for payload in payloads:
            app.send_task(TASK_NAME, args=[payload], task_id=payload["id"], queue=queue_name(MODEL))


def book(site: Site, *payloads: dict[str, Any]) -> None:
    """Enter jobs into the ledger with the columns that its first version had."""
    now = "2025-01-02 03:04:05+00:00"
    with site.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO scan (id, sources, model_name, status, listed, skipped, ignored, unlistable, started_at, "
                "touched_at) VALUES (:scan, '[\"/\"]', :model, 'listed', :listed, 0, 0, 0, :now, :now)"
            ),
            {
                "scan": payloads[0]["scan_id"], "model": MODEL, "now": now,
                "listed": sum(len(payload["images"]) for payload in payloads),
            },
        )  # fmt: skip
        for payload in payloads:
            connection.execute(
                text(
                    "INSERT INTO job (id, scan_id, status, images, queued_at, payload) "
                    "VALUES (:id, :scan, 'queued', :images, :now, :payload)"
                ),
                {
                    "id": payload["id"], "scan": payload["scan_id"], "now": now, "images": len(payload["images"]),
                    "payload": zlib.compress(dumps(payload).encode()),
                },
            )  # fmt: skip


def with_code(site: Site, folder: Path, code: str) -> Site:
    """The same installation, whose commands run some code first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    changed = Site(site.folder)
    changed.environment["PYTHONPATH"] = f"{folder}{os.pathsep}{Path(__file__).parents[2]}"
    return changed


def test_a_queue_of_an_older_release_waits_for_the_upgrade_of_the_database_and_is_done_after_it(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "faces", 6)
    site = make_site()
    old = make_engine(site.settings)
    upgrade_to(old, "0003")
    old.dispose()
    first = message(paths[:2], 7)
    second = message(paths[2:4], 7, model_id=None)
    third = message(paths[4:], 7, version=2, model_id=None)
    site.__dict__["engine"] = make_engine(site.settings)  # the program's own way would refuse it, as it must
    book(site, first, second, third)
    send(site, first, second, third)

    for words in (("worker", "start"), ("producer", "enqueue", tmp_path / "faces"), ("db", "list")):
        refused = site.run(*words)
        assert refused.returncode == 6
        assert refused.stderr.splitlines()[-1].startswith("error: database schema 0003 is older than this program's")
        assert "run `db upgrade`" in refused.stderr

    site.ok("db", "upgrade")
    with site.worker():
        wait_for(lambda: read_ledger(site.engine, 7).is_complete, "the old jobs")
    assert read_ledger(site.engine, 7).ok == 6
    site.ok("db", "verify", "7", "--complete")

    with site.engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    refused = site.run("worker", "start")
    assert refused.returncode == 6
    assert "newer than this program's" in refused.stderr
    assert "install a newer facesieve" in refused.stderr


def test_a_message_of_the_next_release_waits_for_a_worker_of_that_release(site: Site, tmp_path: Path) -> None:
    payload = message(write_images(tmp_path / "faces", 5), 1, version=NEXT)
    book(site, payload)
    with site.worker():
        send(site, payload)
        wait_for(lambda: f"handed back: message has version {NEXT}" in site.log(), "the old worker to leave it")
        assert not read_ledger(site.engine, 1).errors
        newer = with_code(site, tmp_path / "newer", NEWER)
        with newer.worker():
            wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the new worker to take it")
    assert read_ledger(site.engine, 1).ok == 5


def test_a_message_that_no_worker_can_read_is_given_up_with_a_reason_and_sent_again_after_the_upgrade(
    site: Site, tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "faces", 5)
    payload, stranger = message(paths, 1, version=NEXT), message(paths, 1, version=NEXT)
    book(site, payload)
    with with_code(site, tmp_path / "impatient", IMPATIENT).worker():
        send(site, payload, stranger)  # the ledger knows nothing of the second one, and it must not go round for ever
        wait_for(lambda: read_ledger(site.engine, 1).errors, "the job to be given up")
        wait_for(lambda: site.log().count(" rejected: ") == 2, "both messages to be refused")
    assert any(f"version {NEXT}" in reason for reason in read_ledger(site.engine, 1).errors)
    with site.engine.connect() as connection:
        assert connection.execute(select(schema.job.c.deliveries)).scalars().all() == [3]

    newer = with_code(site, tmp_path / "newer", NEWER)
    with newer.worker():
        assert "1 jobs with 5 images sent again" in newer.ok("producer", "retry")
        wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the new worker to take it")
    assert read_ledger(site.engine, 1).ok == 5
