"""``producer run`` as a user calls it, in a fresh data directory: embedded Valkey, Celery worker, SQLite."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import func, select

from contenders import Measured, Task
from core.settings import PREFIX, load_settings
from db import schema
from db.engine import open_engine

SAMPLE_SECONDS = 0.5  # looking costs a part of a core, which what is measured then lacks


def measure(task: Task, source: str | None = None) -> Measured:
    """Score the pictures by one command; its seconds are the ledger's, from the first job's start to the last's end.

    They are read from their folder, or from another source that has them under the same names. The facts have the
    seconds of the whole command, those until the first verdicts were in the database, and the peaks of resident memory.
    """
    with TemporaryDirectory(prefix="facesieve-run-") as folder:
        data_dir = Path(folder)
        # What the first worker on a machine converts, once; all others find it.
        (data_dir / "cache").symlink_to(task.cache)
        begin = datetime.now(UTC)
        started = time.perf_counter()
        memory = _run(task, source or str(task.folder), data_dir)
        whole = time.perf_counter() - started
        ledger, scores = _read(data_dir)
    facts = {
        "whole_seconds": whole,
        "start_up_seconds": (ledger["first_start"] - begin).total_seconds(),
        "first_verdict_seconds": (ledger["first_end"] - begin).total_seconds(),
        "engine": f"{ledger['engine']}, {ledger['precision']}",
        "jobs": ledger["jobs"],
        "peak_mib": memory,
    }
    return Measured((ledger["last_end"] - ledger["first_start"]).total_seconds(), scores, facts)


def _run(task: Task, source: str, data_dir: Path) -> dict[str, int]:
    """Run the command to its end and return the peaks of its processes' memory."""
    environment = os.environ | {f"{PREFIX}DATA_DIR": str(data_dir), f"{PREFIX}MODEL": str(task.artifact)}
    words = [sys.executable, "-P", "-m", "producer", "run", source, f"--limit={task.images}", "--json"]
    peaks: Counter[str] = Counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            for name, mib in _memory(process.pid).items():
                peaks[name] = max(peaks[name], mib)
            time.sleep(SAMPLE_SECONDS)
    finally:
        process.wait()  # interrupted, it stops worker and broker, and needs its data directory until then
    if process.returncode:
        raise SystemExit(f"`producer run` exited with {process.returncode}")
    return dict(peaks)


def _memory(producer: int) -> dict[str, int]:
    """Return the resident MiB, now, of the producer, of the worker's parent, and of all its children together.

    What processes share after a fork counts in each of them.
    """
    sizes = {"producer": _resident(producer)}
    for worker in _children(producer):
        if b"worker" in _proc(worker, "cmdline").split(b"\0"):  # the broker is started by the producer, too
            children = [_resident(child) for child in _descendants(worker)]
            sizes |= {"worker": _resident(worker), "worker's children": sum(children), "children": len(children)}
    return sizes


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended
        return []
    return [int(child) for task in tasks for child in _proc(pid, f"task/{task.name}/children").split()]


def _resident(pid: int) -> int:
    fields = _proc(pid, "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20 if fields else 0


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _read(data_dir: Path) -> tuple[dict[str, Any], list[float]]:
    """Return what the ledger says of the jobs, and the scores by the names of their files."""
    job = schema.job.c
    figures = select(
        func.min(job.started_at).label("first_start"),
        func.min(job.finished_at).label("first_end"),
        func.max(job.finished_at).label("last_end"),
        func.min(job.engine).label("engine"),
        func.min(job.precision).label("precision"),
        func.count().label("jobs"),
    ).where(job.status == "done")
    scored = select(schema.verdict.c.p_real).join(schema.image).order_by(schema.image.c.uri)
    engine = open_engine(load_settings(data_dir=data_dir))
    try:
        with engine.connect() as connection:
            ledger = dict(connection.execute(figures).mappings().one())
            return ledger, list(connection.execute(scored).scalars())
    finally:
        engine.dispose()
