"""What is killed loses nothing."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from db.ledger import Ledger, latest_scan, read_ledger
from tests.e2e.conftest import Site, children_of, stop, wait_for, write_images

pytestmark = pytest.mark.tensorflow

#: Decoding an image that begins with these bytes kills the process, as a fault in a native decoder would.
POISON = b"POISON"
KILLER = f"""
import os, signal
import cv2
decode = cv2.imdecode
def deadly(data, *rest):
    if bytes(data[-6:]) == {POISON!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(data, *rest)
cv2.imdecode = deadly
"""


def ledger(site: Site) -> Ledger:
    return read_ledger(site.engine, latest_scan(site.engine))


def scored(site: Site) -> int:
    return ledger(site).scored


def rows(site: Site) -> int:
    with site.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM verdict")).scalar_one())


@pytest.mark.timeout(400)
def test_ten_thousand_images_survive_three_kills_of_the_worker_process(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 10_000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "50")
    with site.worker() as worker:
        for share in (0.15, 0.4, 0.65):
            wait_for(lambda share=share: scored(site) >= 10_000 * share, f"{share:.0%} of the images")
            child, *_ = wait_for(lambda: children_of(worker.pid), "a child")
            os.kill(child, signal.SIGKILL)
            wait_for(lambda child=child: len(set(children_of(worker.pid)) - {child}) == 2, "another child")
        wait_for(lambda: ledger(site).is_complete, "the end of the scan", 200)

    assert rows(site) == 10_000
    assert ledger(site).ok == 10_000
    site.ok("db", "verify", "--complete")
    with site.engine.connect() as connection:
        # A kill between two jobs loses none.
        assert 1 <= connection.execute(text("SELECT sum(losses) FROM job")).scalar_one() <= 3


def test_an_image_that_kills_its_worker_is_isolated(make_site: Callable[..., Site], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(KILLER)
    site = make_site(PYTHONPATH=f"{tmp_path / 'site'}{os.pathsep}{Path(__file__).parents[2]}")
    paths = write_images(tmp_path / "faces", 64)
    for path in (paths[20], paths[41]):
        path.write_bytes(path.read_bytes() + POISON)

    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "64")
    with site.worker():
        wait_for(lambda: ledger(site).is_complete, "the end of the scan", 150)

    assert ledger(site).ok == 62
    assert ledger(site).failed == {"crashed": 2}
    crashed = site.ok("db", "list", "--status", "crashed", "--csv")
    assert str(paths[20]) in crashed
    assert str(paths[41]) in crashed
    site.ok("db", "verify", "--complete")
    with site.engine.connect() as connection:
        # Three deaths find the first image, two more the second.
        assert connection.execute(text("SELECT deliveries FROM job")).scalar_one() == 6


def test_the_job_of_a_lost_host_goes_to_another_worker(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(FACESIEVE_VISIBILITY_TIMEOUT="5")
    write_images(tmp_path / "faces", 2000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "500")
    lost = site.start("worker", "start")
    wait_for(lambda: ledger(site).running, "a running job")

    children = children_of(lost.pid)
    lost.kill()  # nobody hands the job back
    lost.wait()
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "its children to die with it")
    assert ledger(site).running
    with site.worker():
        wait_for(lambda: ledger(site).is_complete, "the end of the scan")

    assert rows(site) == 2000
    site.ok("db", "verify", "--complete")


def test_a_stopped_worker_hands_its_job_back(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(FACESIEVE_DRAIN_SECONDS="0")
    write_images(tmp_path / "faces", 4000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "4000")
    worker = site.start("worker", "start")
    wait_for(lambda: ledger(site).running, "a running job")

    assert stop(worker) == 0
    assert scored(site) == 0
    with site.worker():
        wait_for(lambda: ledger(site).is_complete, "the end of the scan")

    assert rows(site) == 4000


def test_a_stopped_worker_finishes_its_job_if_there_is_time(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site(FACESIEVE_DRAIN_SECONDS="60")
    write_images(tmp_path / "faces", 2000)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "1000")
    worker = site.start("worker", "start")
    wait_for(lambda: ledger(site).running, "a running job")

    assert stop(worker) == 0

    assert scored(site) >= 1000
    assert not ledger(site).running


def test_jobs_that_redis_lost_are_found_and_sent_again(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 60)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "20")
    for path in (site.data_dir / "valkey").glob("appendonlydir/*"):
        path.unlink()

    assert "3 jobs with 60 images sent again" in site.ok("producer", "retry")
    assert "0 jobs with 0 images sent again" in site.ok("producer", "retry")
    with site.worker():
        wait_for(lambda: ledger(site).is_complete, "the end of the scan")
    site.ok("db", "verify", "--complete")
