"""What the benchmarks share: pictures to score, the machine in words, medians, tables and result files."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=3, help="runs of everything; medians are shown")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file of the results")
    return made


def write_pictures(folder: Path, number: int, side: int) -> list[Path]:
    """Write face pictures as JPEG files, each one different, drawn from the examples of this project.

    Args:
        folder: is made; pictures that are there already are kept.
        number: of pictures.
        side: of each, in pixels.
    """
    sources = [cv2.imread(str(path)) for path in sorted((ROOT / "examples" / "faces").glob("[gr]*-*.jpg"))]
    faces = [image for image in sources if image is not None]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:06d}.jpg" for index in range(number)]
    for index, path in enumerate(paths):
        face = faces[index % len(faces)]
        # A crop of random place and size, as large files hold real detail and not only smooth enlargements.
        least = min(face.shape[:2]) * 3 // 4
        size = int(rng.integers(least, min(face.shape[:2]) + 1))
        top, left = (int(rng.integers(0, length - size + 1)) for length in face.shape[:2])
        if not path.exists():
            picture = cv2.resize(
                face[top : top + size, left : left + size], (side, side), interpolation=cv2.INTER_CUBIC
            )
            grain = rng.normal(0, 3, picture.shape)
            picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder for one run, removed afterwards."""
    with TemporaryDirectory(prefix="facesieve-bench-") as folder:
        yield Path(folder)


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes, by the clock."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median(values: Sequence[float]) -> float:
    """Return the median, to four significant digits: more would not be repeated."""
    return float(f"{statistics.median(values):.4g}")


def medians(taken: Mapping[str, Sequence[float]], columns: Sequence[str]) -> dict[str, float | None]:
    """Return the median of each column; None where nothing was measured."""
    return {column: median(taken[column]) if taken.get(column) else None for column in columns}


def machine() -> dict[str, Any]:
    """Describe what a result was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in named.items()}
    flags = facts.get("flags", "").split()
    return {
        "cpu": facts.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "units": [name for name in ("avx2", "avx512f", "amx_bf16", "amx_int8") if name in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def publish(name: str, out: Path, rows: Sequence[dict[str, Any]], packages: Sequence[str], **facts: Any) -> None:
    """Print a table of results and write them, with the machine and the versions, to ``<out>/<name>.json``."""
    table = Table(title=name)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(
            *("" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())
        )
    # As wide as it is: a file or a narrow terminal would squeeze its columns away.
    Console(width=Console(width=1000).measure(table).maximum).print(table)
    result = {
        "benchmark": name,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {package: version(package) for package in packages},
        **facts,
        "rows": list(rows),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
