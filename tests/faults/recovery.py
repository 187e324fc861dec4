"""How long a worker with a real model is one process short: its child is killed, and time runs until another one saves.

    python -m tests.faults.recovery --model face-efficientnet --times 5

One slot, so that whatever is saved next was saved by the new child: it has loaded the model, warmed it up, been given
the job again and scored it. The figures go to ``benchmarks/results/faults.json`` and to ``docs/reliability.md``.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from sqlalchemy import func, select

from core.settings import PREFIX, load_settings
from db import schema
from db.ledger import reading
from tests.e2e.conftest import Site, children_of, wait_for, write_images
from tests.faults.report import PAGE, RESULTS, table, write_between

IMAGES = 8_000
JOB_SIZE = 64
POLL_SECONDS = 0.02
START_SECONDS = 600.0  # the first start converts the network


class Installation(Site):
    """An installation with a model that comes with the project."""

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__(folder, FACESIEVE_MODEL=model, FACESIEVE_JOB_SIZE=str(JOB_SIZE))
        self._model = model

    @property
    def settings(self):
        """Its settings."""
        return load_settings(data_dir=self.data_dir, model=self._model)


def measure(model: str, times: int) -> list[float]:
    """Return the seconds from each kill until a job that was begun after it was saved."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as folder:
        site = Installation(Path(folder), model)
        site.data_dir.mkdir()
        write_images(Path(folder) / "images", IMAGES)
        site.ok("producer", "enqueue", Path(folder) / "images")
        with site.worker("--gpus", "none", "--slots", "1") as worker:
            wait_for(lambda: _saved(site) >= 3, "the first jobs", START_SECONDS)
            found = []
            for _ in range(times):
                (child,) = wait_for(lambda: children_of(worker.pid), "a child")
                before = _saved(site)
                wait_for(lambda before=before: _saved(site) > before, "the next job")
                os.kill(child, signal.SIGKILL)
                killed_at, before = time.monotonic(), _saved(site)
                while _saved(site) == before:
                    time.sleep(POLL_SECONDS)
                found.append(round(time.monotonic() - killed_at, 2))
        site.close()
    return found


def main(arguments: list[str]) -> None:
    """Measure, and write the figures and the page."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="face-efficientnet")
    made.add_argument("--times", type=int, default=5)
    chosen = made.parse_args(arguments)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    seconds = measure(chosen.model, chosen.times)
    figures = {"model": chosen.model, "seconds": seconds, "median_s": median(seconds), "longest_s": max(seconds)}
    print(figures)
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(old | {"recovery": figures}, indent=1) + "\n")
    row = (chosen.model, len(seconds), f"{figures['median_s']:.1f}", f"{figures['longest_s']:.1f}")
    write_between(PAGE, "recovery", table(("model", "kills", "median s", "longest s"), [row]))


def _saved(site: Site) -> int:
    job = schema.job.c
    with reading(site.engine) as connection:
        return int(connection.execute(select(func.count()).where(job.status == "done")).scalar_one())


if __name__ == "__main__":
    main(sys.argv[1:])
