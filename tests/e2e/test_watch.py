"""A watch, a worker, and somebody who stops them: real processes, from a file that appears to its verdict."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.errors import FacesieveError
from db.filters import Filter
from db.ledger import latest_scan, read_ledger
from db.queries import list_verdicts
from tests.e2e.conftest import Site, wait_for, write_images

pytestmark = pytest.mark.tensorflow

QUICK = ("--settle", "0.5", "--max-wait", "0.5")


def scored(site: Site, scan_id: int) -> int:
    """Return how many images of a scan have a verdict; -1 if there is no such scan yet."""
    if not (site.data_dir / "facesieve.db").exists():
        return -1
    try:
        return read_ledger(site.engine, scan_id).scored
    except FacesieveError:
        return -1


def statuses(site: Site) -> dict[str, str]:
    """Return the status of each verdict, by the path of the image."""
    return {row["uri"]: row["status"] for row in list_verdicts(site.engine, Filter())}


def summary(site: Site) -> dict[str, Any]:
    """Return the JSON that the latest producer has printed."""
    log = max(site.folder.glob("producer-*.log"))
    return json.loads(log.read_text().splitlines()[-1])


@contextmanager
def written_slowly(path: Path, content: bytes) -> Iterator[None]:
    """Write a file little by little for the length of a block, then the rest."""
    is_over = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for position in range(0, len(content), 8):
                file.write(content[position : position + 8])
                is_over.wait(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_appears_is_scored_until_the_watch_is_stopped(site: Site, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "incoming"
    there, outside, slow = write_images(folder, 3)
    outside = outside.rename(tmp_path / outside.name)
    content = slow.read_bytes()
    slow.unlink()
    with site.worker():
        watch = site.start("producer", "watch", folder, "--json", *QUICK)
        wait_for(lambda: scored(site, 1) == 1, "a first verdict")
        with written_slowly(slow, content):
            outside.rename(folder / outside.name)
            write_images(folder / "many", 1000)
            (folder / ".hidden.jpg").write_bytes(content)
            wait_for(lambda: scored(site, 1) == 1002, "the verdicts of what is complete")
            assert str(slow) not in statuses(site)
        wait_for(lambda: scored(site, 1) == 1003, "the verdict of what is complete now")
        there.write_bytes(b"no image any more")
        wait_for(lambda: scored(site, 1) == 1004, "another verdict of what has changed")

        watch.send_signal(number)
        assert watch.wait(10) == 0, site.log()
    assert site.log().count("Traceback") == 0
    found = statuses(site)
    assert len(found) == 1003
    assert {path for path, status in found.items() if status != "ok"} == {str(there)}
    assert summary(site) == {
        "scan": 1, "seen": 1004, "skipped": 0, "sent": 1004, "unsent": 0, "vanished": 0, "ignored": 0, "unlistable": [],
    }  # fmt: skip
    assert json.loads(site.ok("producer", "status", "--json"))["is_complete"]
    site.ok("db", "verify", "--complete")


def test_a_watch_that_was_killed_goes_on_without_what_is_scored(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    write_images(folder, 50)
    with site.worker():
        watch = site.start("producer", "watch", folder, *QUICK)
        wait_for(lambda: scored(site, 1) == 50, "all verdicts")
        os.kill(watch.pid, signal.SIGKILL)
        watch.wait()
        write_images(folder / "more", 20)

        watch = site.start("producer", "watch", folder, "--json", *QUICK)
        wait_for(lambda: scored(site, 2) == 20, "the verdicts of what came meanwhile")
        watch.terminate()
        assert watch.wait(10) == 0, site.log()
    found = summary(site)
    assert (found["seen"], found["skipped"], found["sent"]) == (70, 50, 20)
    assert latest_scan(site.engine) == 2
    site.ok("db", "verify")


def test_a_stop_does_not_wait_for_room_in_the_queue(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    write_images(folder, 30)
    site.environment |= {"FACESIEVE_MAX_QUEUED_IMAGES": "10"}
    watch = site.start("producer", "watch", folder, "--job-size", "5", *QUICK)
    wait_for(lambda: scored(site, 1) == 0 and read_ledger(site.engine, 1).listed == 10, "a full queue")
    watch.terminate()
    assert watch.wait(10) == 0, site.log()
    assert "20 found but not queued: watch again" in site.log()
    site.ok("db", "verify")


def test_a_source_that_cannot_be_watched_is_one_line(site: Site, tmp_path: Path) -> None:
    done = site.run("producer", "watch", tmp_path / "gone")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"error: source {tmp_path / 'gone'} does not exist\n"
