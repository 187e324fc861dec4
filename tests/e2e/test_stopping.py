"""A worker that is stopped, however it is stopped: its job goes back, counts no loss, and nothing is left running."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from db import schema
from db.ledger import read_ledger
from tests.e2e.conftest import Site, stop, wait_for, write_images

pytestmark = pytest.mark.tensorflow

#: Decoding takes long: a job of a hundred images some seconds.
SLOW = """
import time
import cv2
decode = cv2.imdecode
def slowly(*words):
    time.sleep(0.04)
    return decode(*words)
cv2.imdecode = slowly
"""


@pytest.fixture
def make_slow_site(make_site: Callable[..., Site], tmp_path: Path) -> Callable[..., Site]:
    """Make an installation whose workers decode slowly, with images and a scan of them in jobs."""

    def make(images: int, job_size: int, **environment: str) -> Site:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(SLOW)
        path = f"{tmp_path / 'site'}{os.pathsep}{Path(__file__).parents[2]}"
        site = make_site(PYTHONPATH=path, **environment)
        write_images(tmp_path / "faces", images)
        site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", str(job_size))
        return site

    return make


def jobs(site: Site) -> list[tuple[str, int]]:
    """Status and losses of each job."""
    with site.engine.connect() as connection:
        return [(row.status, row.losses) for row in connection.execute(select(schema.job))]


def running(site: Site) -> bool:
    return any(status == "running" for status, _ in jobs(site))


def test_a_job_that_outlasts_the_drain_time_goes_back_into_the_queue(make_slow_site: Callable[..., Site]) -> None:
    site = make_slow_site(5000, 5000, FACESIEVE_DRAIN_SECONDS="1", FACESIEVE_LOG="json")
    worker = site.start("worker", "start")
    wait_for(lambda: running(site), "a running job")

    assert stop(worker) == 0

    assert jobs(site) == [("queued", 0)]
    (log,) = site.folder.glob("worker-*.log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]  # nothing else is in it
    said = [line["action"] for line in lines if line["action"] != "library"]
    assert sorted(said) == sorted(
        ["worker_started", *["engine_chosen", "child_ready"] * 2, *["worker_stopping"] * 2, "worker_stopped"]
    )
    assert lines[-1]["released"] == 1


def test_a_second_signal_hands_the_job_back_at_once(make_slow_site: Callable[..., Site]) -> None:
    site = make_slow_site(5000, 5000, FACESIEVE_DRAIN_SECONDS="3600")
    worker = site.start("worker", "start")
    wait_for(lambda: running(site), "a running job")

    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: "worker_stopping" in site.log(), "the first signal to be heard")
    assert stop(worker) == 0  # within the minute that it waits

    assert jobs(site) == [("queued", 0)]


@pytest.mark.timeout(400)
def test_workers_come_and_go_without_a_loss_or_a_failed_job(make_slow_site: Callable[..., Site]) -> None:
    site = make_slow_site(500, 25, FACESIEVE_DRAIN_SECONDS="0", FACESIEVE_MAX_LOSSES="1")
    with site.worker():
        second = site.start("worker", "start")
        wait_for(lambda: len({w for w in workers(site) if w}) == 2, "both workers to have jobs")
        assert stop(second) == 0  # scaled down, in the middle of its jobs
        wait_for(lambda: read_ledger(site.engine, 1).is_complete, "the end of the scan")

    assert set(jobs(site)) == {("done", 0)}
    site.ok("db", "verify", "--complete")


def workers(site: Site) -> set[str | None]:
    with site.engine.connect() as connection:
        return set(connection.execute(select(schema.job.c.worker).where(schema.job.c.status == "running")).scalars())
