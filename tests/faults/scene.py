"""One run's servers, workers and producer: set up, looked after as a service manager would, and taken down."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from struct import pack
from typing import Self

from sqlalchemy import Engine

from benchmarks.simulated import NAME, RATE
from core.embedded import EmbeddedBroker
from core.settings import PREFIX, Settings, load_settings
from db.engine import make_engine
from tests.e2e.conftest import Site, left_running
from tests.faults.launcher import Forked, Launcher
from tests.faults.plan import Plan
from tests.faults.proxy import Proxy
from tests.faults.servers import Postgres, Valkey
from tests.faults.stock import TINY, Stock, copy_stock, new_database, small_disk
from tests.faults.worker import ENGINE, HUNGER, THREADS

Process = Forked | subprocess.Popen[bytes]
ROOT = Path(__file__).parents[2]
DRAIN_SECONDS = 3
VISIBILITY_SECONDS = 10
#: A worker that is told to stop must have ended by then: draining, and what Celery takes on a slow machine.
STOP_SECONDS = 40.0
#: A service manager waits so long before it starts again what has ended by itself.
RESTART_SECONDS = 1.0


class Place(Site):
    """An installation whose workers have the simulated engine; its runner reaches the servers past the proxies."""

    def __init__(
        self, folder: Path, model: str, direct: dict[str, str], launcher: Launcher | None, **environment: str
    ) -> None:
        """Make it.

        Args:
            folder: of the run.
            model: name of the artifact.
            direct: settings by which the runner reaches the servers.
            launcher: starts the commands; without one, each is an interpreter of its own.
            environment: of the commands.
        """
        super().__init__(folder, **environment)
        self.environment = {
            name: value
            for name, value in self.environment.items()
            if not name.startswith(PREFIX) or name in environment or name == f"{PREFIX}DATA_DIR"
        }
        self._model = model
        self._direct = direct
        self._launcher = launcher

    @property
    def settings(self) -> Settings:
        """The settings of the runner."""
        return load_settings(data_dir=self.data_dir, model=self._model, **self._direct)

    def start(self, *words: str | Path) -> Process:
        """Start a command; its output goes to a file beside the data directory."""
        if self._launcher is None:
            return super().start(*words)
        log = self.folder / f"{words[0]}-{time.monotonic_ns()}.log"
        return self._launcher.start(self._command(words), self.environment, log, self.data_dir)

    def _command(self, words: tuple[str | Path, ...]) -> list[str]:
        module = "tests.faults.worker" if words[0] == "worker" else str(words[0])
        return [sys.executable, "-m", module, *map(str, words[1:])]


class Scene:
    """What faults are done to.

    Attributes:
        plan: of the run.
        site: the commands, with their environment.
        disk: folder of a small disk, with the SQLite database.
        hunger: file that tells a decoder to end its process.
        images: folder of the images.
        model: name of the artifact.
        expected: status of each image, by its path.
        workers: that should be running.
        producer: the one that waits, or the last one.
        restarts: how often a worker that had ended was started again.
        exits: exit codes of the workers that ended without being told to.
        complaints: what should not have happened.
    """

    producer: Process
    valkey: Valkey
    broker_proxy: Proxy
    database_proxy: Proxy

    def __init__(self, plan: Plan, folder: Path, stock: Stock, postgres: Postgres, launcher: Launcher) -> None:
        self.plan = plan
        self.disk = folder / "disk"
        self.hunger = folder / "hunger"
        self.model = NAME if plan.setting.engine == "simulated" else TINY
        self.images = folder / "images"
        self.workers: list[Process] = []
        self.restarts = 0
        self.exits: list[int] = []
        self.complaints: list[str] = []
        self.postgres = postgres
        self._folder = folder
        self._stock = stock
        self._clock = folder / "clock"
        self._stopping: list[tuple[Process, float]] = []
        self._ended: dict[int, float] = {}
        self._stack = ExitStack()
        # A clock that can be stepped is loaded by a new interpreter.
        self._launcher = None if self._has_clock else launcher

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            broker, database = self._start_servers(stack)
            self.site = Place(
                self._folder,
                self.model,
                {**broker[1], **database[1]},
                self._launcher,
                **self._environment(),
                **broker[0],
                **database[0],
            )
            copy_stock(self._stock, self.site.data_dir)
            if self.plan.setting.database == "sqlite":
                shutil.move(self.site.data_dir / "facesieve.db", self.disk)  # another file system
            self.engine: Engine = make_engine(self.site.settings)
            stack.callback(self.engine.dispose)
            self.expected = self._stock.write_images(
                self.images,
                self.plan.images,
                broken=self.plan.broken,
                poison=self.plan.poison,
                chance=Random(self.plan.seed),
            )
            stack.callback(self._end)
            self.workers = [self._start_worker() for _ in range(self.plan.setting.nodes)]
            self.start_producer("enqueue", self.images, "--wait")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    # --- for faults ----------------------------------------------------------------------------------------------

    def stop_in_order(self, worker: Process) -> None:
        """Tell a worker to stop, and start another one in its place."""
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
            self._stopping.append((worker, time.monotonic()))
            self.workers[self.workers.index(worker)] = self._start_worker()

    def step_clock(self, seconds: int) -> None:
        """Set the clock of all commands of the run, those that run already included."""
        with self._clock.open("r+b") as file:  # in place: it is mapped into their memory
            file.write(pack("l", seconds))

    def embedded_lives(self) -> bool:
        """Tell whether the embedded broker runs: else the process id in its file may be another's by now."""
        return EmbeddedBroker(self.site.data_dir)._is_alive()

    # --- for the runner ------------------------------------------------------------------------------------------

    def start_producer(self, *words: str | Path) -> None:
        """Start a producer, which from now on is the one that is waited for."""
        self.producer = self.site.start("producer", *words)

    def supervise(self) -> None:
        """Start again what has ended, and make sure that what was told to stop does."""
        now = time.monotonic()
        for position, worker in enumerate(self.workers):
            if worker.poll() is None:
                continue
            if worker.pid not in self._ended:
                self._ended[worker.pid] = now
                self.exits.append(worker.returncode)
            elif now - self._ended[worker.pid] > RESTART_SECONDS:
                self.workers[position] = self._start_worker()
                self.restarts += 1
        for worker, since in self._stopping:
            if worker.poll() is None and now - since > STOP_SECONDS:
                self.complaints.append(f"a worker did not stop within {STOP_SECONDS:g} s of SIGTERM")
                worker.kill()
        self._stopping = [(worker, since) for worker, since in self._stopping if worker.poll() is None]

    def stop(self) -> None:
        """Stop all that was started, in order, and complain about what does not end well."""
        if self.producer.poll() is None:
            self.producer.send_signal(signal.SIGTERM)
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        everything = [self.producer, *self.workers, *(worker for worker, _ in self._stopping)]
        deadline = time.monotonic() + STOP_SECONDS
        for process in everything:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.complaints.append(f"{process.args[2]} did not stop within {STOP_SECONDS:g} s of SIGTERM")
                process.kill()
                process.wait()
        codes = [worker.returncode for worker in self.workers]
        if any(codes):
            self.complaints.append(f"workers exited with {codes} when they were told to stop")
        if left := left_running(self.site.data_dir):
            self.complaints.append(f"still running: {list(left.values())}")

    def _end(self) -> None:
        """Leave nothing behind, whatever happened."""
        for process in (self.producer, *self.workers, *(worker for worker, _ in self._stopping)):
            process.kill()
            process.wait()
        for pid in left_running(self.site.data_dir):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    @property
    def _has_clock(self) -> bool:
        return any(event.fault.startswith("clock") for event in self.plan.events)

    def _environment(self) -> dict[str, str]:
        environment = {
            "PYTHONPATH": str(ROOT),
            HUNGER: str(self.hunger),
            ENGINE: self.plan.setting.engine,
            RATE: f"{self.plan.rate:.1f}",
            f"{PREFIX}MODEL": self.model,
            f"{PREFIX}JOB_SIZE": str(self.plan.job_size),
            f"{PREFIX}VISIBILITY_TIMEOUT": str(VISIBILITY_SECONDS),
            f"{PREFIX}DECODE_THREADS": str(THREADS),
            f"{PREFIX}DRAIN_SECONDS": str(DRAIN_SECONDS),
            f"{PREFIX}RETRY_SECONDS": "20",
        }
        if self._has_clock:
            self._clock.write_bytes(pack("l", 0))
            environment |= {"LD_PRELOAD": str(self._stock.clock), "CLOCK_STEP": str(self._clock)}
        return environment

    def _start_servers(self, stack: ExitStack) -> tuple[tuple[dict[str, str], dict[str, str]], ...]:
        """Return, of broker and database, what the commands' environment and the runner's settings must say."""
        broker: tuple[dict[str, str], dict[str, str]] = ({}, {})
        if self.plan.setting.broker == "redis":
            stack.enter_context(small_disk(self._folder / "queue"))
            self.valkey = stack.enter_context(Valkey(self._folder / "queue" / "files", self._folder / "valkey.sock"))
            self.broker_proxy = stack.enter_context(Proxy(self.valkey.socket))
            broker = (
                {f"{PREFIX}BROKER_URL": f"redis://127.0.0.1:{self.broker_proxy.port}/0"},
                {"broker_url": f"redis+socket://{self.valkey.socket}"},
            )
        stack.enter_context(small_disk(self.disk))
        url = f"sqlite:///{self.disk / 'facesieve.db'}"
        database = ({f"{PREFIX}DATABASE_URL": url}, {"database_url": url})
        if self.plan.setting.database == "postgresql":
            name = stack.enter_context(new_database(self.postgres))
            self.database_proxy = stack.enter_context(Proxy(self.postgres.socket))
            address = f"postgresql+psycopg://postgres@127.0.0.1:{self.database_proxy.port}/{name}"
            direct = self.postgres.url.set(database=name).render_as_string(hide_password=False)
            database = ({f"{PREFIX}DATABASE_URL": address}, {"database_url": direct})
        return broker, database

    def _start_worker(self) -> Process:
        return self.site.start("worker", "start", "--gpus", "none", "--slots", str(self.plan.setting.slots))
