"""A command that waits looks after what it waits for."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from core.broker import UNACKED_KEY, connect, open_broker, queue_name
from db import schema
from db.ledger import read_ledger
from tests.e2e.conftest import MODEL, Site, children_of, stop, wait_for, write_images

pytestmark = pytest.mark.tensorflow


def begun(site: Site) -> bool:
    if not (site.data_dir / "facesieve.db").exists():
        return False
    with site.engine.connect() as connection:
        return connection.execute(select(schema.job.c.id).where(schema.job.c.status == "done")).first() is not None


def server_of(site: Site) -> int:
    return int((site.data_dir / "valkey" / "server.pid").read_text())


def test_a_run_starts_its_embedded_broker_again(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 3000)
    run = site.start("producer", "run", tmp_path / "faces", "--job-size", "25")
    wait_for(lambda: begun(site), "a first job")

    os.kill(server_of(site), signal.SIGKILL)

    assert run.wait(120) == 0, site.log()
    site.ok("db", "verify", "--complete")


def test_a_run_sends_again_what_its_broker_lost(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 3000)
    run = site.start("producer", "run", tmp_path / "faces", "--job-size", "25")
    wait_for(lambda: begun(site), "a first job")

    with open_broker(site.settings) as url, connect(url) as client:
        client.flushall()

    assert run.wait(120) == 0, site.log()
    site.ok("db", "verify", "--complete")


def test_a_job_that_was_delivered_but_that_no_worker_has_is_sent_again(site: Site, tmp_path: Path) -> None:
    """As after a lost connection: the worker has forgotten what it had not begun."""
    write_images(tmp_path / "faces", 20)
    with open_broker(site.settings) as url, connect(url) as client:
        site.ok("producer", "enqueue", tmp_path / "faces")
        message = client.rpop(queue_name(MODEL)).decode()
        client.hset(UNACKED_KEY, "tag", json.dumps([json.loads(message), "", queue_name(MODEL)]))
        client.zadd(f"{UNACKED_KEY}_index", {"tag": time.time()})
        assert "0 jobs" in site.ok("producer", "retry"), "without a worker nobody can tell"
        with site.worker() as worker:
            wait_for(lambda: children_of(worker.pid) and "is ready" in site.log(), "the worker")
            assert "1 jobs with 20 images sent again" in site.ok("producer", "retry")
            wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the end of the scan")


def test_a_run_goes_on_when_the_worker_that_it_found_is_stopped(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 6000)
    worker = site.start("worker", "start")
    wait_for(lambda: "is ready" in site.log(), "the worker")
    run = site.start("producer", "run", tmp_path / "faces", "--job-size", "25")
    wait_for(lambda: begun(site), "a first job")

    assert stop(worker) == 0

    assert run.wait(120) == 0, site.log()
    site.ok("db", "verify", "--complete")


def test_many_orderly_stops_do_not_fail_a_job(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(FACESIEVE_DRAIN_SECONDS="0", FACESIEVE_MAX_LOSSES="1")
    write_images(tmp_path / "faces", 4000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "4000")

    for _ in range(3):
        worker = site.start("worker", "start")
        wait_for(lambda: read_ledger(site.engine, 1).running, "the job to run")
        assert stop(worker) == 0
        assert read_ledger(site.engine, 1).queued == 4000

    with site.worker():
        wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the end of the scan")
    site.ok("db", "verify", "--complete")


def test_another_folder_for_temporary_files_finds_the_same_server(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site()
    site.data_dir = site.data_dir.rename(tmp_path / "a name with spaces")
    site.environment["FACESIEVE_DATA_DIR"] = str(site.data_dir)
    write_images(tmp_path / "faces", 20)
    (tmp_path / "other").mkdir()
    with site.worker():
        wait_for(lambda: "is ready" in site.log(), "the worker")
        before = server_of(site)
        site.environment["TMPDIR"] = str(tmp_path / "other")
        site.ok("producer", "enqueue", tmp_path / "faces", "--wait")
        assert server_of(site) == before


def test_a_batch_size_reaches_the_worker(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 4)
    run = site.start("producer", "run", tmp_path / "faces", "--batch-size", "7", "--job-size", "2")

    def environments() -> list[bytes]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if b"worker" in (folder / "cmdline").read_bytes():
                    found.append((folder / "environ").read_bytes())
            except OSError:
                continue
        return [text for text in found if str(site.data_dir).encode() in text]

    wait_for(lambda: any(b"FACESIEVE_BATCH_SIZE=7\0" in text for text in environments()), "a worker with that setting")
    assert run.wait(60) == 0
