"""Broken images, by the hundred thousand, go the way that a worker's images go; each must end with a status.

    python -m tests.fuzz.fuzz_images [--number 100000] [--seed 1] [--way worker]
    python -m tests.fuzz.fuzz_images --only 4711 --save broken.png

Ways are ``worker``: read, digested, decoded, hashed by ``worker.fetch``; and ``thumbnail``: shrunk by Pillow as
`db report` and `db review` do it. Each image is made from its number and the seed alone, so that it can be made again
by itself. The script fails if an image crashed its process, hung, took too much memory, or ended with an exception.
"""

import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import ImageError
from core.files import describe
from core.settings import Settings, load_settings
from core.verdicts import Status
from tests.fuzz.mutations import mutate
from tests.fuzz.sandbox import Limits, Result, Target, run_cases
from tests.fuzz.seeds import Seed, draw_seeds

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
#: Few enough for the limit on memory to mean something.
MAX_PIXELS = 4_000_000
PRESETS = ("rgb-scaled", "rgb-area", "card")
LIBRARIES = ("opencv-python-headless", "pillow", "pillow-heif", "imagesize")

Row = dict[str, Any]


def make_case(case: int, seed: int) -> tuple[Seed, bytes]:
    """Return a sound image, and what has become of it."""
    pool = draw_seeds()
    sound = pool[case % len(pool)]
    return sound, mutate(sound, pool, Random(f"{seed}/{case}"))


class WorkerWay:
    """Fetches images as a worker does."""

    def __init__(self, settings: Settings) -> None:
        from model.preprocess import configure_cv2
        from worker.fetch import Fetcher

        configure_cv2()
        self._fetchers = [Fetcher(settings, preset) for preset in PRESETS]

    def __call__(self, path: str, case: int) -> str:
        """Return the status that the image of a file gets.

        Raises:
            AssertionError: what was returned is no answer.
        """
        from worker.fetch import Fetched

        found = self._fetchers[case % len(PRESETS)](describe(path)[0])
        if isinstance(found, Fetched):
            assert [crop.shape for crop in found.crops] == [(224, 224, 3)], "not what the network takes"
            assert found.width * found.height <= MAX_PIXELS, "larger than what is allowed"
            return Status.OK
        assert found.status is not Status.OK, "no pixels, and no reason"
        assert found.reason, "no reason"
        return found.status


class ThumbnailWay:
    """Shrinks images as `db report` and `db review` do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, path: str, case: int) -> str:
        """Return the status that the image of a file gets."""
        from db.thumbnails import SIDE, shrink, to_webp

        try:
            to_webp(shrink(Path(path).read_bytes(), self._settings, SIDE))
        except ImageError as error:
            return error.status
        return Status.OK


WAYS: dict[str, Callable[[Settings], Callable[[str, int], str]]] = {"worker": WorkerWay, "thumbnail": ThumbnailWay}


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """Makes the target of ``run_cases``, in each of its children.

    Attributes:
        way: of the images; one of ``WAYS``.
        seed: other images for another.
        folder: for a file of each child.
    """

    way: str
    seed: int
    folder: str

    def __call__(self) -> Target:
        """Return what gives an image its status."""
        go = WAYS[self.way](load_settings(max_pixels=MAX_PIXELS))
        path = Path(self.folder, str(os.getpid()))
        for number, sound in enumerate(draw_seeds()):  # what libraries load with their first image is no image's fault
            path.write_bytes(sound.content)
            go(str(path), number)
        return partial(self._run, go, str(path))

    def _run(self, go: Callable[[str, int], str], path: str, case: int) -> str:
        Path(path).write_bytes(make_case(case, self.seed)[1])
        return go(path, case)


def fuzz(
    way: str, number: int, *, seed: int, children: int, limits: Limits, report: Callable[[int], None] = lambda _: None
) -> list[Result]:
    """Return what becomes of so many broken images.

    Args:
        way: one of ``WAYS``.
        number: of images.
        seed: other images for another.
        children: processes at a time.
        limits: for each image.
        report: called with the number of images that are done.
    """
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="facesieve-fuzz-", dir=in_memory) as folder:
        results = []
        for result in run_cases(ImageTarget(way, seed, folder), number, children=children, limits=limits):
            results.append(result)
            report(len(results))
    return results


def tabulate(results: Sequence[Result]) -> list[Row]:
    """Return a row of counts for each format."""
    pool = draw_seeds()
    by_format = defaultdict(list)
    for result in results:
        by_format[pool[result.case % len(pool)].format].append(result)
    return [
        {
            "format": name,
            "images": len(some),
            **{status: counts[status] for status in Status if status not in (Status.NO_FACE, Status.NOT_FOUND)},
            "faults": sum(bool(result.fault) for result in some),
            "slowest_ms": round(1000 * max(result.seconds for result in some), 1),
            "most_mib": round(max(result.mib for result in some), 1),
        }
        for name, some in sorted(by_format.items())
        for counts in [Counter(result.label for result in some)]
    ]


def faults_of(results: Sequence[Result]) -> list[Row]:
    """Return what went wrong, with the name of the image that was broken."""
    pool = draw_seeds()
    return [
        {"case": result.case, "image": pool[result.case % len(pool)].name, "fault": result.fault,
         "seconds": round(result.seconds, 2), "mib": round(result.mib, 1)}
        for result in sorted(results, key=lambda result: result.case)
        if result.fault
    ]  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    """Print a table."""
    for line in [list(rows[0]), *(list(row.values()) for row in rows)]:
        print("  ".join(f"{cell!s:>11}" for cell in line))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=WAYS, default="worker")
    parser.add_argument("--number", type=int, default=100_000, help="of images")
    parser.add_argument("--seed", type=int, default=1, help="other images for another")
    parser.add_argument("--children", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--seconds", type=float, default=Limits().seconds, help="by the clock, that an image may take")
    parser.add_argument("--mib", type=float, default=Limits().mib, help="of memory, that an image may take")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file of the results")
    parser.add_argument("--only", type=int, help="make just this image, and tell what becomes of it")
    parser.add_argument("--save", type=Path, help="where to put that image")
    options = parser.parse_args(arguments)
    if options.only is not None:
        sound, broken = make_case(options.only, options.seed)
        if options.save:
            options.save.write_bytes(broken)
        print(f"{sound.name}, {len(broken)} bytes")
        with TemporaryDirectory() as folder:
            print(ImageTarget(options.way, options.seed, folder)()(options.only))
        return

    def report(done: int) -> None:
        if done % 100 == 0 or done == options.number:
            print(f"\r{done:,} of {options.number:,} images", end="", file=sys.stderr, flush=True)

    limits = Limits(options.seconds, options.mib)
    results = fuzz(
        options.way, options.number, seed=options.seed, children=options.children, limits=limits, report=report
    )
    print(file=sys.stderr)
    rows, faults = tabulate(results), faults_of(results)
    show(rows)
    found = {
        "way": options.way,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in LIBRARIES},
        "seed": options.seed,
        "images": len(results),
        "limits": {"seconds": limits.seconds, "mib": limits.mib, "pixels": MAX_PIXELS},
        "kinds": len(draw_seeds()),
        "rows": rows,
        "faults": faults,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"fuzz_{options.way}.json").write_text(json.dumps(found, indent=1) + "\n")
    if faults:
        show(faults)
        raise SystemExit(f"{len(faults)} of {len(results):,} images did not just end with a status")


if __name__ == "__main__":
    main()
