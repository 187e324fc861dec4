"""A real node that is broken on purpose: what it notices, what its sign of life says, and how it recovers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import kombu.pools
import pytest

from core.broker import TASK_NAME, make_app, queue_name
from core.settings import load_settings
from tests.e2e.conftest import children_of, wait_for
from tests.integration.lazy_node import MODEL
from worker.alive import BUSY_SECONDS, Child, Sign, read_signs

QUICK = ("BEAT_SECONDS=0.1", "STALL_SECONDS=0.5", "LOOP_SECONDS=2", "FIRST_WAIT_SECONDS=0.2")


class Node:
    """A lazy node, its log and its queue."""

    def __init__(self, folder: Path, url: str, *words: str, **settings: object) -> None:
        self.folder = folder / "data"
        self.settings = load_settings(data_dir=self.folder)
        self._log = folder / "log"
        self._environment = os.environ | {
            "FACESIEVE_DATA_DIR": str(self.folder),
            "FACESIEVE_LOG": "json",
            **{f"FACESIEVE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.lazy_node", url, *words],
                env=self._environment, cwd=Path(__file__).parents[2], stdout=log, stderr=log,
            )  # fmt: skip
        self._app = make_app(url)

    def send(self, **payload: object) -> str:
        """Queue a job and return its id."""
        job = uuid4().hex
        self._app.send_task(TASK_NAME, args=[payload], task_id=job, queue=queue_name(MODEL))
        return job

    def done(self) -> list[str]:
        """The jobs that ended, in their order."""
        path = self.folder / "done"
        return path.read_text().split() if path.exists() else []

    def said(self, action: str) -> list[dict[str, Any]]:
        """What the node logged under an action."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["action"] == action]

    def wait_until_done(self, *jobs: str) -> None:
        wait_for(lambda: set(jobs) <= set(self.done()), "the jobs")

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``worker check --live``."""
        return subprocess.run(
            [sys.executable, "-m", "worker", "check", "--live", *words],
            env=self._environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def sign(self) -> Sign:
        """Its sign of life."""
        (found,) = read_signs(self.settings)
        return found

    def child_with(self, job: str) -> Child:
        """The child that runs a job, when one does."""
        found = wait_for(lambda: [child for child in self.sign().children if child.job == job], "a busy child")
        return cast(Child, found[0])

    def end(self) -> int:
        """Stop it in order and return its exit code."""
        self.process.terminate()
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path, broker: str) -> Iterator[Callable[..., Node]]:
    """Start a node and return when it works."""
    nodes: list[Node] = []

    def run(*words: str, **settings: object) -> Node:
        nodes.append(node := Node(tmp_path, broker, *words, **settings))
        node.wait_until_done(node.send())
        return node

    yield run
    for node in nodes:
        node.process.kill()
        node.process.wait()
    kombu.pools.reset()


def test_a_sign_of_life_tells_what_a_worker_does_and_goes_with_it(start: Callable[..., Node]) -> None:
    node = start("BEAT_SECONDS=0.1", drain_seconds=0)
    job = node.send(sleep=600)
    busy = node.child_with(job)

    (sign,) = json.loads(node.check("--json").stdout)
    assert (sign["state"], sign["fault"], sign["pid"], sign["waiting"]) == ("working", None, node.process.pid, 0)
    assert {child["pid"] for child in sign["children"]} == set(children_of(node.process.pid))
    assert {child["pid"]: child["job"] for child in sign["children"] if child["busy_seconds"] is not None} == {
        busy.pid: job
    }
    assert min(sign["turned_seconds_ago"], sign["heard_seconds_ago"], sign["last_job_seconds_ago"]) >= 0
    alive = node.check("--node", sign["node"])
    assert (alive.returncode, alive.stdout) == (0, f"ok   {sign['node']}: working\n")
    assert node.check("--node", "another@host").returncode == 1

    assert node.end() == 0

    gone = node.check()
    assert (gone.returncode, gone.stdout) == (1, "")
    assert "no worker runs on this host" in gone.stderr
    assert list((node.folder / "alive").iterdir()) == []


def test_a_worker_that_is_stopped_or_killed_is_told_from_one_that_works(start: Callable[..., Node]) -> None:
    node = start("BEAT_SECONDS=0.1")
    sign = node.folder / "alive" / f"{node.sign().node}.json"

    node.process.send_signal(signal.SIGSTOP)
    written = json.loads(sign.read_text())
    aged = json.dumps(written | {"written_at": time.monotonic() - 60})
    sign.write_text(aged + "\n")  # as a minute later
    stuck = node.check()
    assert stuck.returncode == 1
    assert re.search(r"its sign of life is \d+ s old: it hangs", stuck.stdout)
    assert "1 of 1 workers are stuck" in stuck.stderr

    node.process.kill()
    node.process.wait()
    wait_for(lambda: "no worker" in node.check().stderr, "the kernel to release the lock")
    assert sign.exists(), "nobody removed it, and yet it is not taken for a worker"


def test_a_consumer_that_takes_nothing_connects_anew(start: Callable[..., Node]) -> None:
    node = start(*QUICK)
    (node.folder / "deaf").touch()
    jobs = [node.send() for _ in range(3)]
    wait_for(lambda: node.said("consumer_restarted"), "a new connection")
    (node.folder / "deaf").unlink()
    node.wait_until_done(*jobs)

    assert 1 <= node.said("consumer_restarted")[0]["waiting"] <= 3  # it had asked for one before it turned deaf
    assert node.process.poll() is None
    assert node.sign().fault(time.monotonic()) is None
    assert node.end() == 0


def test_a_consumer_that_stays_deaf_ends_its_worker_with_a_reason(start: Callable[..., Node]) -> None:
    node = start(*QUICK)
    (node.folder / "deaf").touch()
    for _ in range(3):
        node.send()

    assert node.process.wait(60) != 0
    assert len(node.said("consumer_restarted")) >= 2  # more, if it got something before it turned deaf
    assert node.said("consumer_stuck")[0]["waiting"] >= 1


def test_a_worker_whose_children_are_all_busy_is_not_taken_for_stuck(start: Callable[..., Node]) -> None:
    node = start(*QUICK)
    jobs = [node.send(sleep=3.0) for _ in range(4)]
    node.wait_until_done(*jobs)
    assert not node.said("consumer_restarted")


def test_a_loop_that_hangs_ends_its_worker_with_a_reason_and_its_job_is_handed_back(
    start: Callable[..., Node], client: Any
) -> None:
    node = start(*QUICK)
    node.child_with(node.send(sleep=600))
    (node.folder / "hang").touch()

    assert node.process.wait(60) != 0
    assert node.said("loop_stuck")
    wait_for(lambda: client.llen(queue_name(MODEL)) + client.hlen("unacked") == 1, "the job to be kept")


def test_a_job_that_takes_longer_than_any_should_is_called_stuck(start: Callable[..., Node]) -> None:
    node = start("BEAT_SECONDS=0.1", "BUSY_SECONDS=1", visibility_timeout=1)
    node.send(sleep=600)
    fault = wait_for(lambda: node.sign().fault(time.monotonic()), "the fault")
    assert "longer than the 1 s that one may take" in fault


def test_a_job_that_waits_for_slow_storage_beyond_the_visibility_timeout_is_not(start: Callable[..., Node]) -> None:
    node = start("BEAT_SECONDS=0.1", visibility_timeout=1)
    assert node.sign().busy_limit == BUSY_SECONDS > 1


def test_a_child_that_dies_once_is_replaced_at_once_and_its_job_done(start: Callable[..., Node]) -> None:
    node = start("BEAT_SECONDS=0.1")
    job = node.send(sleep=3.0)
    child = node.child_with(job)
    os.kill(child.pid, signal.SIGKILL)
    node.wait_until_done(job)

    (lost,) = node.said("child_lost")
    assert (lost["cause"], lost["job"], lost["pid"]) == ("signal SIGKILL", job, child.pid)
    assert not node.said("backing_off")


def test_a_worker_that_is_told_to_stop_does_not_wait_for_children_that_load(tmp_path: Path, broker: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "slow").touch()
    node = Node(tmp_path, broker, "BEAT_SECONDS=0.1", drain_seconds=1)
    try:
        wait_for(lambda: any(sign.state == "working" for sign in read_signs(node.settings)), "the node")
        assert node.end() == 0
    finally:
        node.process.kill()
        node.process.wait()


def test_a_worker_that_is_told_to_stop_ends_its_job_but_waits_for_no_child_that_backs_off(
    start: Callable[..., Node],
) -> None:
    node = start("BEAT_SECONDS=0.1", "FIRST_WAIT_SECONDS=600", "MAX_WAIT_SECONDS=600", drain_seconds=30)
    job = node.send(sleep=5.0)
    node.child_with(job)
    for _ in range(3):  # two deaths are forgiven
        node.send(exit=3)
    wait_for(lambda: node.said("backing_off"), "a wait of the other child")
    assert node.end() == 0
    assert job in node.done()


def test_children_that_die_again_and_again_wait_longer_and_longer(start: Callable[..., Node]) -> None:
    node = start("FIRST_WAIT_SECONDS=0.2", "BEAT_SECONDS=0.1")
    deadly = node.send(exit=3)
    wait_for(lambda: len(node.said("backing_off")) >= 3, "three waits")

    assert [line["seconds"] for line in node.said("backing_off")[:3]] == [0.2, 0.4, 0.8]
    assert {(line["cause"], line["job"]) for line in node.said("child_lost")[:3]} == {("exit code 3", deadly)}
    assert node.process.poll() is None
