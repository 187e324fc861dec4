"""Write the tables of docs/capacity.md: what bench_scale.json measured, and what follows for 10^8 images and 100 GPUs.

    python benchmarks/capacity.py [--results DIR] [--page FILE]

Each figure of that page is made here, from the results alone: of all shapes, with SQLite and PostgreSQL. Run it again
after ``bench_scale.py``.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import lab

from core.settings import Settings

IMAGES, GPUS, SLOTS, GPUS_PER_NODE = 10**8, 100, 2, 8
RATES = (300, 1000, 3000)  # images/s of a GPU
ROOM = 0.8  # of the machine's cores: a shape that takes more is slowed down by them
MILLION = 10**6
QUEUED = int(Settings.model_fields["max_queued_images"].default)
Row = dict[str, Any]
Table = list[list[str]]


@dataclass(frozen=True, slots=True)
class Costs:
    """What the shared parts of a cluster cost, for one job size; the letters are those of ``TEXTS``."""

    job_size: int
    v: float
    d: float
    u: float
    c: float
    q: float
    p: float
    s: float
    t: float
    x: float
    w: float
    f: float
    k: float
    b: float


TEXTS = {
    "v": "CPU seconds of Valkey for 10^6 images, enqueued and drained",
    "d": "CPU seconds of PostgreSQL for 10^6 images, likewise",
    "u": "CPU seconds of the worker processes, likewise",
    "c": "commands to Valkey for a job",
    "q": "bytes of Valkey for a queued image",
    "p": "images/s that one producer enqueues",
    "s": "milliseconds in which a job is saved",
    "t": "bytes of PostgreSQL's tables for a verdict",
    "x": "bytes of its indexes for a verdict",
    "w": "bytes of its write-ahead log for a verdict",
    "f": "bytes of an SQLite file for a verdict",
    "k": "connections to PostgreSQL of a process",
    "b": "connections to Valkey of a node",
}


class Results:
    """What ``bench_scale.py`` has written."""

    def __init__(self, path: Path) -> None:
        self.all: Row = json.loads(path.read_text())
        self.rows, self.enqueue, self.storage = (
            {(row["database"], row["shape"], row.get("job_size")): row for row in self.all[name]}
            for name in ("rows", "enqueue", "storage")
        )
        self.shapes = sorted({shape for _, shape, _ in self.rows}, key=lambda name: (_processes(name), _nodes(name)))
        self.job_sizes = sorted({job_size for _, _, job_size in self.rows})

    def unhindered(self) -> str:
        """Return the largest shape, and of these the one of most nodes, that left the machine some of its cores."""
        limit = ROOM * self.all["machine"]["cores"]
        free = [
            shape
            for shape in self.shapes
            if all(self.rows["postgresql", shape, job_size]["cores"] <= limit for job_size in self.job_sizes)
        ]
        return (free or self.shapes[:1])[-1]

    def costs(self, job_size: int) -> Costs:
        """Return the costs at that shape, with PostgreSQL."""
        shape = self.unhindered()
        key = "postgresql", shape, job_size
        row, enqueued, held = self.rows[key], self.enqueue[key], self.storage["postgresql", shape, None]
        return Costs(
            job_size=job_size,
            v=row["valkey_cpu"] + enqueued["valkey_cpu"],
            d=row["database_cpu"] + enqueued["database_cpu"],
            u=row["node_cpu"] + row["child_cpu"],
            c=row["commands_per_job"],
            q=enqueued["queue_bytes"],
            p=enqueued["images_per_second"],
            s=row["save_ms"],
            t=held["tables_bytes"],
            x=held["indexes_bytes"],
            w=held["log_bytes"],
            f=self.storage["sqlite", shape, None]["tables_bytes"],
            k=held["database_connections"] / _processes(shape),
            b=held["broker_connections"] / _nodes(shape),
        )


def scaling(results: Results) -> Table:
    """Return the table of images/s by the number of processes."""
    columns = [(database, size) for database in results.all["databases"] for size in results.job_sizes]
    table = [["nodes x processes", *(f"{database}, {size} images in a job" for database, size in columns)]]
    for shape in results.shapes:
        cells = [results.rows[database, shape, size] for database, size in columns]
        table.append(
            [shape.replace("x", " x ")]
            + [f"{n(row['images_per_second'])} ({row['efficiency']:.0%}, {row['cores']:.1f})" for row in cells]
        )
    return table


def measured(costs: Sequence[Costs]) -> Table:
    """Return the table of what was measured, by letter."""
    head = ["", "measured", *(f"J = {some.job_size}" for some in costs)]
    return [head, *([f"*{name}*", text, *(n(getattr(some, name)) for some in costs)] for name, text in TEXTS.items())]


def carried(costs: Sequence[Costs]) -> Table:
    """Return the table of what a cluster asks for in a second, at some speeds of its GPUs and for each job size."""
    rows: list[tuple[str, str, Callable[[float, Costs], float]]] = [
        ("images/s", "R = G r", lambda rate, _: rate),
        ("hours for 10^8 images", "10^8 / R / 3,600", lambda rate, _: IMAGES / rate / 3600),
        ("messages/s", "R / J", lambda rate, some: rate / some.job_size),
        ("commands/s to Valkey", "R c / J", lambda rate, some: rate * some.c / some.job_size),
        ("cores of Valkey, which has one", "R v / 10^6", lambda rate, some: rate * some.v / MILLION),
        ("cores of PostgreSQL", "R d / 10^6", lambda rate, some: rate * some.d / MILLION),
        ("cores of workers, but for decoding and engine", "R u / 10^6", lambda rate, some: rate * some.u / MILLION),
        ("rows/s written", "2 R", lambda rate, _: 2 * rate),
        ("commits/s of workers", "2 R / J", lambda rate, some: 2 * rate / some.job_size),
        ("MB/s of write-ahead log", "R w / 10^6", lambda rate, some: rate * some.w / MILLION),
        ("producers", "R / p", lambda rate, some: rate / some.p),
        ("seconds that a full queue lasts", "M / R", lambda rate, _: QUEUED / rate),
    ]
    table = [["", "arithmetic", *(f"*r* = {n(rate)}" for rate in RATES)]]
    for text, arithmetic, value in rows:
        cells = ([n(value(GPUS * rate, some)) for some in costs] for rate in RATES)
        table.append([text, f"`{arithmetic}`", *(" / ".join(dict.fromkeys(cell)) for cell in cells)])
    return table


def totals(costs: Sequence[Costs], most_connections: str) -> Table:
    """Return the table of what 10^8 images and 100 GPUs take, however fast they are."""
    rows: list[tuple[str, str, Callable[[Costs], float]]] = [
        ("messages", "10^8 / J", lambda some: IMAGES / some.job_size),
        ("images in Valkey, at most", "M + G S J", lambda some: QUEUED + GPUS * SLOTS * some.job_size),
        (
            "MB of Valkey, at most",
            "(M + G S J) q / 10^6",
            lambda some: (QUEUED + GPUS * SLOTS * some.job_size) * some.q / MILLION,
        ),
        ("GB of Valkey, were there no *M*", "10^8 q / 10^9", lambda some: IMAGES * some.q / 1e9),
        ("CPU hours of Valkey", "100 v / 3,600", lambda some: IMAGES / MILLION * some.v / 3600),
        ("CPU hours of PostgreSQL", "100 d / 3,600", lambda some: IMAGES / MILLION * some.d / 3600),
        ("GB of PostgreSQL's tables", "10^8 t / 10^9", lambda some: IMAGES * some.t / 1e9),
        ("GB of its indexes", "10^8 x / 10^9", lambda some: IMAGES * some.x / 1e9),
        ("GB of its write-ahead log, one after the other", "10^8 w / 10^9", lambda some: IMAGES * some.w / 1e9),
        ("GB of an SQLite file", "10^8 f / 10^9", lambda some: IMAGES * some.f / 1e9),
        (f"connections to PostgreSQL, which allows {most_connections}", "G S k", lambda some: GPUS * SLOTS * some.k),
        ("connections to Valkey, which allows 10,000", "G b / N", lambda some: GPUS / GPUS_PER_NODE * some.b),
    ]
    table = [["", "arithmetic", *(f"J = {some.job_size}" for some in costs)]]
    return table + [[text, f"`{arithmetic}`", *(n(value(some)) for some in costs)] for text, arithmetic, value in rows]


def limits(costs: Sequence[Costs], cores: int) -> Table:
    """Return the table of the images/s at which each shared part is used up, the first one first."""
    parts: list[tuple[str, str, Callable[[Costs], float]]] = [
        (
            f"the {cores} cores of this machine, by everything",
            f"{cores} * 10^6 / (v + d + u)",
            lambda some: cores * MILLION / (some.v + some.d + some.u),
        ),
        ("one producer", "p", lambda some: some.p),
        ("one core of PostgreSQL", "10^6 / d", lambda some: MILLION / some.d),
        ("16 cores of PostgreSQL", "16 * 10^6 / d", lambda some: 16 * MILLION / some.d),
        ("Valkey's one thread", "10^6 / v", lambda some: MILLION / some.v),
    ]
    parts.sort(key=lambda part: part[2](costs[0]))
    table = [["used up", "at images/s", *(f"J = {some.job_size}" for some in costs)]]
    return table + [[text, f"`{arithmetic}`", *(n(value(some)) for some in costs)] for text, arithmetic, value in parts]


def renew(page: str, results: Results) -> str:
    """Return the page with its tables made anew; they stand between ``<!-- NAME -->`` and ``<!-- end -->``."""
    costs = [results.costs(job_size) for job_size in results.job_sizes]
    found, machine = results.all, results.all["machine"]
    source = (
        f"{found['rounds']} round{'s' if found['rounds'] > 1 else ''} on {machine['cores']} cores of {machine['cpu']}, "
        f"{found['measured_at'][:10]}; an engine of {n(found['rate'])} images/s in batches of {found['batch']}, "
        f"names of {found['uri_bytes']} bytes, "
        f"PostgreSQL {found['databases']['postgresql']['server_version']} and Valkey as they come. Costs are those of "
        f"{results.unhindered().replace('x', ' x ')} processes."
    )
    parts = {
        "source": fill(source, 120),
        "scaling": _markdown(scaling(results), texts=1),
        "measured": _markdown(measured(costs)),
        "carried": _markdown(carried(costs)),
        "totals": _markdown(totals(costs, found["databases"]["postgresql"]["max_connections"])),
        "limits": _markdown(limits(costs, machine["cores"])),
    }
    for name, text in parts.items():
        page, times = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{text}\n\g<2>", page, flags=re.DOTALL)
        if times != 1:
            raise ValueError(f"the page has {times} places for {name}, it needs one")
    return page


def n(value: float) -> str:
    """Return a number to three significant digits, with separators."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def _nodes(shape: str) -> int:
    return int(shape.partition("x")[0])


def _processes(shape: str) -> int:
    return _nodes(shape) * int(shape.partition("x")[2])


def _markdown(table: Table, texts: int = 2) -> str:
    head, *rows = table
    rule = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=lab.RESULTS, help="folder of bench_scale.json")
    parser.add_argument("--page", type=Path, default=lab.ROOT / "docs" / "capacity.md")
    options = parser.parse_args(arguments)
    results = Results(options.results / "bench_scale.json")
    options.page.write_text(renew(options.page.read_text(), results))


if __name__ == "__main__":
    main()
