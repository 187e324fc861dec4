"""How fast a producer lists, looks up, books and sends, and what that takes of memory: on SQLite and PostgreSQL.

    python benchmarks/bench_enqueue.py [--names 1_000_000] [--files 100_000] [--databases sqlite postgresql]

Each measurement is a process of its own (`enqueuing.py`) with a real Valkey, whose queue nobody empties:

- ``list``: listing alone, of names that are made up, of small files (looked at, as the fingerprint asks for), and of
  the lines of a list: one names an object, which is not looked at, the next a file that does not exist.
- ``enqueue, none done``: all that `producer enqueue` does once its connections are open. Each image is looked up among
  the verdicts of a model that has none of these; a job is booked in SQL, then sent.
- ``enqueue, all done``: the same names when each has a verdict, so that all are skipped.
- ``producer enqueue``: the command as a user runs it on the files or the list, with the start of Python and of its
  connections.

`first_job_s` are the seconds from the start of the command to its first message in Valkey. `cpu_us` are microseconds of
the producer's own processor time for an image, `peak_mb` is the most memory it had, and `broker_bytes` what Valkey's
queue takes of memory for an image that was sent.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lab
import redis
from databases import DATABASES
from enqueuing import MODEL
from saving import made_up_manifest
from sqlalchemy import Engine, select

from core.broker import connect, queue_name
from core.embedded import EmbeddedBroker
from core.jobs import Job
from core.settings import PREFIX, load_settings
from core.verdicts import Outcome, Status
from db import schema
from db.engine import make_engine, upgrade
from db.store import RunReport, Store

SCRIPT = Path(__file__).parent / "enqueuing.py"
FILES_IN_FOLDER = 1000
COLUMNS = ("images_per_second", "first_job_s", "cpu_us", "peak_mb", "broker_bytes")

#: Measurements by column, of what was done on a database with so many images.
Found = defaultdict[tuple[str, str, int], defaultdict[str, list[float]]]


def main() -> None:
    """Measure, print, write."""
    options = _parser().parse_args()
    found: Found = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        databases = {name: stack.enter_context(DATABASES[name]()) for name in options.databases}
        folder = stack.enter_context(lab.scratch())
        files = _make_files(folder / "files", options.files)
        lines = _make_list(folder / "list.txt", options.names)
        broker = stack.enter_context(EmbeddedBroker(folder / "broker"))
        client = stack.enter_context(connect(broker.url))
        for _ in range(options.rounds):
            _measure(found, "", "list made-up names", "--names", options.names)
            _measure(found, "", "list files", "--source", files)
            _measure(found, "", "list lines", "--source", lines)
        for name, database in databases.items():
            _measure_database(found, name, database.make(folder), (broker.url, client), (files, lines), options)
    rows = [
        {"database": name, "what": what, "images": images} | lab.medians(taken, COLUMNS)
        for (name, what, images), taken in found.items()
    ]
    facts = {name: {"settings": database.settings} for name, database in databases.items()}
    lab.publish("bench_enqueue", options.out, rows, ["celery", "redis", "sqlalchemy"], rounds=options.rounds, **facts)


def _parser() -> argparse.ArgumentParser:
    made = lab.parser(__doc__)
    made.add_argument("--names", type=int, default=1_000_000, help="made-up images")
    made.add_argument("--files", type=int, default=100_000, help="files of one byte each")
    made.add_argument("--databases", nargs="+", choices=list(DATABASES), default=list(DATABASES))
    return made


def _make_files(folder: Path, number: int) -> Path:
    for index in range(number):
        path = folder / f"{index // FILES_IN_FOLDER:04}" / f"IMG_{index:07}.jpg"
        if index % FILES_IN_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    return folder


def _make_list(path: Path, number: int) -> Path:
    with path.open("w") as lines:
        for index in range(number):
            folder = "/photos" if index % 2 else "s3://photos"
            lines.write(f"{folder}/{index // FILES_IN_FOLDER:06}/IMG_{index:09}.jpg\n")
    return path


def _measure_database(
    found: Found,
    name: str,
    url: str,
    broker: tuple[str, "redis.Redis"],
    sources: tuple[Path, Path],
    options: argparse.Namespace,
) -> None:
    (address, client), (files, lines) = broker, sources
    engine = make_engine(load_settings(database_url=url))
    upgrade(engine)
    manifest = made_up_manifest(MODEL)
    Store(engine).register_model(manifest)
    places = ("--database", url, "--broker", address)
    for _ in range(options.rounds):
        for what, *words in (("made-up names", "--names", options.names), ("files", "--source", files)):
            client.flushall()
            taken = _measure(found, name, f"enqueue {what}, none done", *words, *places)
            held = client.memory_usage(queue_name(MODEL), samples=0)
            found[name, f"enqueue {what}, none done", taken["sent"]]["broker_bytes"].append(held / taken["sent"])
        for what, source, images in (("", files, options.files), (" of a list", lines, options.names)):
            client.flushall()
            _measure_command(found[name, f"producer enqueue{what}", images], source, images, url, address)
    client.flushall()
    _score_all(engine, options.names)
    for _ in range(options.rounds):
        taken = _measure(found, name, "enqueue made-up names, all done", "--names", options.names, *places)
        if taken["sent"]:
            raise RuntimeError(f"{taken['sent']} images were sent that have a verdict")
    engine.dispose()


def _measure(found: Found, name: str, what: str, *words: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], stdout=subprocess.PIPE, check=True, env=_environment()
    )
    taken: dict[str, Any] = json.loads(done.stdout)
    columns = found[name, what, taken["listed"]]
    columns["images_per_second"].append(taken["listed"] / taken["seconds"])
    columns["cpu_us"].append(taken["cpu_seconds"] / taken["listed"] * 1e6)
    columns["peak_mb"] += [] if taken["peak_mb"] is None else [taken["peak_mb"]]
    return taken


def _measure_command(columns: dict[str, list[float]], source: Path, images: int, url: str, broker: str) -> None:
    words = [sys.executable, "-m", "producer", "--database", url, "--broker", broker, "enqueue", str(source), "--json"]
    unlimited = {f"{PREFIX}MODEL": MODEL, f"{PREFIX}MAX_QUEUED_IMAGES": str(10**12)}
    started = time.perf_counter()
    with (
        connect(broker) as client,
        subprocess.Popen(words, cwd=lab.ROOT, env=_environment() | unlimited, stdout=subprocess.DEVNULL) as process,
    ):
        while not client.exists(queue_name(MODEL)) and process.poll() is None:
            time.sleep(0.01)
        columns["first_job_s"].append(time.perf_counter() - started)
        if process.wait():
            raise RuntimeError(f"producer enqueue ended with {process.returncode}")
    columns["images_per_second"].append(images / (time.perf_counter() - started))


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(lab.ROOT)}


def _score_all(engine: Engine, number: int) -> None:
    """Save a verdict for each made-up image of one of the scans, as a worker would."""
    manifest = made_up_manifest(MODEL)
    report = RunReport("worker@bench", manifest.id, "openvino", "bf16", 1.0, 1.0, 1.5)
    job, scan = schema.job, schema.scan
    first = select(scan.c.id).where(scan.c.listed == number, scan.c.sources.contains("made-up")).limit(1)
    with engine.connect() as connection:
        payloads = (
            connection.execute(select(job.c.payload).where(job.c.scan_id == first.scalar_subquery())).scalars().all()
        )
    store = Store(engine)
    for payload in payloads:
        sent = Job.unpack(payload)
        store.save_job(sent, [Outcome(ref, Status.OK, 0.5) for ref in sent.images], report)


if __name__ == "__main__":
    main()
