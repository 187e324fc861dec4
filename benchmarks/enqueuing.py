"""One enqueuing, in a process that has nothing else in its memory: prints what it took, as JSON.

    python benchmarks/enqueuing.py [--database URL --broker URL] (--names 1_000_000 | --source FOLDER_OR_LIST)

Without a database, images are only listed. Nobody takes what is sent, so the limit of what Redis may hold is lifted.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from core.broker import connect, make_app
from core.images import ImageRef
from core.settings import load_settings
from db.engine import open_engine
from producer.enqueue import Enqueuer
from producer.scan import Scan
from producer.session import find_target

MODEL = "made-up"


class MadeUpNames:
    """Names of images that do not exist, where a producer expects a scan of folders.

    Attributes:
        ignored: as of a ``producer.scan.Scan``.
        unlistable: likewise.
        unlistable_count: likewise.
    """

    def __init__(self, number: int) -> None:
        self.ignored = self.unlistable_count = 0
        self.unlistable: list[str] = []
        self._number = number

    def __iter__(self) -> Iterator[ImageRef]:
        for index in range(self._number):
            size = 100_000 + index * 7919 % 1_000_000
            modified = 1_600_000_000_000_000_000 + index * 7919
            yield ImageRef(f"/photos/{index // 1000:06}/IMG_{index:09}.jpg", f"{size}-{modified}", size)


def main() -> None:
    """Enqueue, and say what it took."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--database")
    made.add_argument("--broker")
    made.add_argument("--names", type=int)
    made.add_argument("--source")
    options = made.parse_args()
    started, used = time.perf_counter(), time.process_time()
    scan = MadeUpNames(options.names) if options.source is None else Scan([options.source])
    if options.database is None:
        listed, sent = sum(1 for _ in scan), 0
    else:
        settings = load_settings(database_url=options.database, model=MODEL, max_queued_images=10**12)
        engine = open_engine(settings)
        with connect(options.broker) as client:
            enqueuer = Enqueuer(settings, engine, make_app(options.broker), client)
            target = find_target(settings, engine, skip="all")
            tally = enqueuer.start([options.source or "made-up"], target)
            started, used = time.perf_counter(), time.process_time()  # all is open now
            enqueuer.enqueue(scan, target, tally, lambda _: None)
        listed, sent = tally.listed, tally.sent
    taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}
    print(json.dumps({"listed": listed, "sent": sent, "peak_mb": _peak_mb(), **taken}))


def _peak_mb() -> float | None:
    """Return the most memory this process has had. Not from getrusage: a parent's memory counts there, too."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    main()
