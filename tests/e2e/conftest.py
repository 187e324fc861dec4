"""Real processes: every command runs as a user would run it, with a small network that loads like the real one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sqlalchemy import Engine

from core.settings import Settings, load_settings
from db.engine import open_engine
from tests.tiny import make_tiny_artifact

DEADLINE_SECONDS = 90.0
MODEL = "tiny"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Return the first truthy value of the condition; fail the test if it does not come in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


def processes_of(data_dir: Path) -> dict[int, str]:
    """Return the live processes of this data directory, started with it in their environment or at home in it."""
    mark = f"FACESIEVE_DATA_DIR={data_dir}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = mark in (folder / "environ").read_bytes().split(b"\0")
            is_ours |= (folder / "cwd").readlink().is_relative_to(data_dir)  # Valkey overwrites its environment
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if is_ours and state != "Z" and int(folder.name) != os.getpid():
            found[int(folder.name)] = f"{state} {command}"
    return found


def left_running(data_dir: Path) -> dict[int, str]:
    """Return the processes of a data directory that do not end in a moment: the kernel takes one to bury the dead."""
    with suppress(AssertionError):
        wait_for(lambda: not processes_of(data_dir), "their end", 5)
    return processes_of(data_dir)


def children_of(pid: int) -> list[int]:
    """Return the direct children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Site:
    """One installation: a data directory, and the four commands with its environment."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.environment = (
            os.environ | {"FACESIEVE_DATA_DIR": str(self.data_dir), "FACESIEVE_MODEL": MODEL} | environment
        )

    @property
    def settings(self) -> Settings:
        """The settings of a process with this environment."""
        urls = {name: self.environment.get(f"FACESIEVE_{name.upper()}") for name in ("broker_url", "database_url")}
        return load_settings(data_dir=self.data_dir, model=MODEL, **urls)

    @cached_property
    def engine(self) -> Engine:
        """The results database."""
        return open_engine(self.settings)

    def run(self, *words: str | Path, timeout: float = 150.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(words), env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def ok(self, *words: str | Path) -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a command; its output goes to a file beside the data directory."""
        log = (self.folder / f"{words[0]}-{time.monotonic_ns()}.log").open("wb")
        with log:
            return subprocess.Popen(
                self._command(words), env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @contextmanager
    def worker(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker for the length of a block."""
        process = self.start("worker", "start", *options)
        try:
            yield process
        finally:
            stop(process)

    def close(self) -> None:
        """Close the test's own connections."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    def log(self) -> str:
        """Return what all started commands have printed, and the workers and the broker that they started."""
        logs = [*self.folder.glob("*.log"), *self.data_dir.glob("*/*.log")]
        return "".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in sorted(logs))

    def _command(self, words: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", *map(str, words)]


def stop(process: "subprocess.Popen[bytes]") -> int:
    """Stop a process in order and return its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(60)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session", autouse=True)
def interrupts_are_heard() -> None:
    """What a shell runs in the background ignores SIGINT, and so would every command that is started here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with an artifact of the small network, converted already: workers then start in a second."""
    from model.predictor import load_predictor

    settings = load_settings(data_dir=tmp_path_factory.mktemp("tiny"))
    make_tiny_artifact(settings, MODEL)
    load_predictor(settings.models_dir / MODEL, engine="openvino", cache=settings.cache_dir)
    return settings.data_dir


@pytest.fixture
def make_site(tmp_path: Path, tiny_data_dir: Path) -> Iterator[Callable[..., Site]]:
    """Make an installation; after the test nothing of it may be running."""
    made: list[Site] = []

    def make(**environment: str) -> Site:
        site = Site(tmp_path, **environment)
        shutil.copytree(tiny_data_dir, site.data_dir)
        made.append(site)
        return site

    yield make
    for site in made:
        site.close()
        left = left_running(site.data_dir)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"still running: {left}\n{site.log()}"


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """An installation with the default settings."""
    return make_site()


def write_images(folder: Path, number: int, *, size: int = 48) -> list[Path]:
    """Write so many small JPEG files, ten different ones over and over."""
    rng = np.random.default_rng(1)
    contents = [cv2.imencode(".jpg", rng.integers(0, 256, (size, size, 3), np.uint8))[1].tobytes() for _ in range(10)]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(number):
        path = folder / f"{index // 1000:02d}" / f"{index:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents[index % 10])
        paths.append(path)
    return paths
