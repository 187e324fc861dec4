"""The whole of docker-compose.yml in real containers: `make compose-test`. Takes minutes, and an engine."""

import base64
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from core.settings import load_settings
from tests.e2e.conftest import write_images

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import simulated  # noqa: E402
from compose_stack import SIMULATED, Stack, build, call, missing, wait_for  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.timeout(1800),  # building the image is in it
    pytest.mark.skipif("COMPOSE_TEST" not in os.environ, reason="takes minutes: `make compose-test`"),
]
#: `COMPOSE_TEST` may name an image that is built already.
BUILT = os.environ.get("COMPOSE_TEST", "1")
JOB_SIZE = 20
COMPILERS = ("gcc", "cc", "g++", "make", "cargo")
PACKAGE = re.compile(r"([\w.-]+)==(\S+)")


@cache
def built() -> dict[str, str]:
    """Build the image, once, unless one is named; return what tells compose of it."""
    if BUILT == "1":
        build()
    return {} if BUILT == "1" else {"WORKER_IMAGE": BUILT}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images and two files that are none."""
    folder = tmp_path_factory.mktemp("compose") / "faces"
    write_images(folder, 300)
    (folder / "00" / "broken.jpg").write_bytes((folder / "00" / "000000.jpg").read_bytes()[:300])
    (folder / "00" / "text.jpg").write_text("no image")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # containers read it under a user of their own
    return folder


@pytest.fixture(scope="module")
def few(images: Path) -> Path:
    """A folder of images for six jobs."""
    folder = images.parent / "few"
    folder.mkdir()
    folder.chmod(0o755)
    for number in range(6 * JOB_SIZE):
        (folder / f"{number}.jpg").hardlink_to(images / "00" / f"{number:06d}.jpg")
    return folder


@pytest.fixture(scope="module")
def stack(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All that can be had here, with one worker; Grafana's image is large and its service is like the others."""
    if reason := missing():
        pytest.skip(reason)
    stack = Stack(tmp_path_factory.mktemp("stack"), images, FACESIEVE_JOB_SIZE=str(JOB_SIZE), **built())
    stack.make_secrets()
    try:
        stack.up("worker", "flower", "exporter", "prometheus")
        yield stack
    finally:
        print("\n".join(stack.logs()[-200:]))  # shown if a test fails
        stack.down()


@pytest.fixture(scope="module")
def slow(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Workers of one process each, whose engine only waits: a job takes twenty seconds, however fast the machine is."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slow")
    simulated.make_artifact(load_settings(data_dir=folder / "data"))
    stack = Stack(
        folder,
        few,
        SIMULATED,
        FACESIEVE_MODEL=simulated.NAME,
        FACESIEVE_JOB_SIZE=str(JOB_SIZE),
        SIMULATED_RATE=str(JOB_SIZE / 20),
        SIMULATED_MODELS=str(folder / "data" / "models"),
        **built(),
    )
    stack.make_secrets()
    try:
        yield stack
    finally:
        print("\n".join(stack.logs()[-200:]))
        stack.down()


def all_ready(stack: Stack, number: int) -> list[str]:
    """Return the workers, once there are so many and all are ready."""
    found = stack.ready_workers()
    return found if len(found) == number else []


def running(stack: Stack, workers: list[str]) -> dict[str, str]:
    """Return the job that each of these containers runs; nothing unless all of them have one."""
    rows = stack.ask("SELECT id, worker FROM job WHERE status = 'running'", workers[0])
    jobs = {row["worker"].partition("@")[2]: str(row["id"]) for row in rows}
    found = {name: jobs[name[:12]] for name in workers if name[:12] in jobs}
    return found if len(found) == len(workers) else {}


def ask(url: str, credentials: str | None = None) -> tuple[int, str]:
    """Return the status and the text of a page."""
    asked = urllib.request.Request(url)
    if credentials:
        asked.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, ""


def counts(stack: Stack) -> dict[str, int]:
    """Return how many images the newest scan has of each status, as its jobs say."""
    (row,) = stack.ask(
        "SELECT sum(n_ok) AS ok, sum(n_truncated) AS truncated, sum(n_unsupported) AS unsupported FROM job "
        "WHERE scan_id = (SELECT max(id) FROM scan)"
    )
    return {name: int(value) for name, value in row.items()}


def open_jobs(stack: Stack) -> int:
    """Return how many jobs wait or run."""
    return int(stack.ask("SELECT count(*) AS open FROM job WHERE status IN ('queued', 'running')")[0]["open"])


def test_a_folder_is_scanned_and_every_image_has_its_verdict(stack: Stack, images: Path) -> None:
    stack.run("producer", "enqueue", str(images), "--force", "--wait")

    found = counts(stack)
    assert (found["ok"], found["truncated"] + found["unsupported"]) == (300, 2)
    stack.run("db", "verify", "--complete")
    listed = json.loads(stack.run("db", "list", "--json", "--limit", "1", "--status", "unsupported"))
    assert str(images) in json.dumps(listed)  # the host's own path


def test_a_killed_worker_loses_nothing_and_the_others_take_its_jobs(slow: Stack, few: Path) -> None:
    slow.up("worker", workers=3)
    workers = wait_for(lambda: all_ready(slow, 3), "three workers")
    slow.run("producer", "enqueue", str(few), "--force")
    at_work = wait_for(lambda: running(slow, workers), "a job for each worker")
    victim, job = at_work.popitem()
    call("docker", "kill", victim)
    (alive, *_) = at_work
    (left,) = slow.ask(f"SELECT status FROM job WHERE id = '{job}'", alive)
    assert left["status"] == "running"  # it died in the middle

    def is_done() -> bool:
        slow.run("producer", "retry")  # sends again what only the dead worker had
        return open_jobs(slow) == 0

    wait_for(is_done, "the end of the scan")
    slow.run("db", "verify", "--complete")
    (again,) = slow.ask(f"SELECT worker, status, n_ok FROM job WHERE id = '{job}'")
    assert (again["status"], again["n_ok"]) == ("done", JOB_SIZE)
    assert not victim.startswith(again["worker"].partition("@")[2])


def test_a_stopped_worker_ends_in_order_and_loses_nothing(slow: Stack, few: Path) -> None:
    slow.up("worker", workers=2)
    workers = wait_for(lambda: all_ready(slow, 2), "two workers")
    slow.run("producer", "enqueue", str(few), "--force")
    at_work = wait_for(lambda: running(slow, workers), "a job for each worker")
    stopped = next(iter(at_work))
    call("docker", "stop", "--time", "30", stopped)  # then it would be killed, with exit code 137
    assert slow.inspect(stopped)["State"]["ExitCode"] == 0

    wait_for(lambda: open_jobs(slow) == 0, "the end of the scan")
    slow.run("db", "verify", "--complete")
    assert slow.ask("SELECT sum(losses) AS losses FROM job WHERE scan_id = (SELECT max(id) FROM scan)") == [
        {"losses": 0}
    ]


def test_flower_shows_the_jobs_in_a_browser_and_wants_its_password(
    stack: Stack, images: Path, new_page: Callable[..., "Page"]
) -> None:
    stack.wait_until_healthy("flower")
    url = stack.url("flower", 5555)
    credentials = (stack.secrets / "flower_auth").read_text().strip()
    assert ask(url)[0] == 401
    assert ask(url, "flower:flower")[0] == 401
    assert ask(url, credentials)[0] == 200
    wait_for(lambda: stack.ready_workers(2), "the worker")
    stack.run("producer", "enqueue", str(images), "--force", "--wait")

    user, _, password = credentials.partition(":")
    page = new_page(http_credentials={"username": user, "password": password})
    page.goto(f"{url}/tasks")
    page.wait_for_selector("#tasks-table tbody tr:nth-child(5)")
    assert re.search(r"job [0-9a-f]{8} scan \d+: 20 images", page.inner_text("#tasks-table"))
    page.goto(url)
    page.wait_for_function("parseInt(document.querySelector('#workers-succeeded').innerText) >= 10")
    assert "face-efficientnet" in page.inner_text("#workers-table")


def test_prometheus_reads_the_exporter(stack: Stack) -> None:
    for service in ("exporter", "prometheus"):
        stack.wait_until_healthy(service)
    url = stack.url("prometheus", 9090)

    def up() -> Any:
        answer = json.loads(ask(f"{url}/api/v1/query?query=up")[1])
        return {row["metric"]["job"]: row["value"][1] for row in answer["data"]["result"]}.get("facesieve") == "1"

    wait_for(up, "the exporter in Prometheus")


def test_a_worker_is_healthy_and_has_no_rights(stack: Stack) -> None:
    (worker,) = stack.wait_until_healthy("worker")

    def inside(*words: str) -> str:
        return call("docker", "exec", worker, *words)

    assert inside("id", "-u").strip() == "10001"
    assert call("docker", "exec", worker, "sh", "-c", "touch /opt/x 2>&1 || true").endswith("Read-only file system\n")
    for program in COMPILERS:
        with pytest.raises(RuntimeError):
            inside("sh", "-c", f"command -v {program}")
    with pytest.raises(RuntimeError, match="Read-only"):
        inside("sh", "-c", f"touch {stack.images}/x")
    assert inside("grep", "CapEff", "/proc/1/status").split()[1] == "0" * 16


def test_the_image_holds_the_pinned_packages_and_no_tensorflow(stack: Stack) -> None:
    (worker, *_) = stack.containers("worker")
    installed = PACKAGE.findall(
        call("docker", "exec", worker, "python3", "-c",
             "from importlib.metadata import distributions as d; print(*{f'{p.name}=={p.version}' for p in d()})")
    )  # fmt: skip
    names = {normal(name): version for name, version in installed}
    pins = {normal(name): version for name, version in PACKAGE.findall((ROOT / "constraints.txt").read_text())}
    assert {name: version for name, version in names.items() if pins.get(name) != version}.keys() <= {
        "facesieve",
        "pip",
        "setuptools",
    }
    assert "openvino" in names
    assert "tensorflow" not in names


def test_no_secret_is_in_what_the_engine_or_the_logs_tell(stack: Stack) -> None:
    secrets = {part for path in stack.secrets.iterdir() for part in re.findall(r"[0-9a-f]{48}", path.read_text())}
    assert len(secrets) >= 5
    told = "\n".join(stack.logs()) + stack.compose("config")
    for service in ("valkey", "postgres", "worker", "flower", "exporter", "prometheus"):
        for container in stack.containers(service):
            told += json.dumps(stack.inspect(container)) + call("docker", "top", container, "-eo", "pid,args")
    assert [secret for secret in secrets if secret in told] == []


def normal(name: str) -> str:
    """Return a package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_without_secrets_or_a_folder_of_images_nothing_starts(images: Path, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with pytest.raises(RuntimeError, match="folder of images"):
        Stack(tmp_path, "").compose("config")
    without_secrets = Stack(tmp_path, images)
    try:
        with pytest.raises(RuntimeError, match="does not exist"):
            without_secrets.up("valkey", "postgres")
        assert without_secrets.containers("valkey") == without_secrets.containers("postgres") == []
    finally:
        without_secrets.down()
