"""Randomised runs of real processes under faults: what is lost, what is there twice, how long until all is well again.

    python -m tests.faults.run --runs 200 --lanes 4 --out faults.jsonl
    python -m tests.faults.run --seed 17            # one run again
    python -m tests.faults.run --runs 5 --only "child killed (SIGKILL)"

Each run appends a line of JSON; ``python -m tests.faults.report`` makes the table of ``docs/reliability.md`` of them.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from core.settings import PREFIX
from tests.faults.catalogue import FAULTS
from tests.faults.demands import observe
from tests.faults.launcher import Launcher
from tests.faults.plan import Plan, draw
from tests.faults.scene import Scene
from tests.faults.servers import Postgres
from tests.faults.stock import Stock


class Stage:
    """Where runs take place: what they share, and a PostgreSQL server for each of those that run at a time.

    Attributes:
        means: what faults can be done here.
    """

    def __init__(self, folder: Path, lanes: int, logs: Path | None = None, *, has_network: bool = False) -> None:
        """Set it up.

        Args:
            folder: for temporary files.
            lanes: how many runs there can be at a time.
            logs: folder for the logs of runs with complaints.
            has_network: see ``Stock``.
        """
        self._folder = folder
        self._logs = logs
        self._stock = Stock(folder, has_network=has_network)
        self._launcher = Launcher()
        self._servers: SimpleQueue[Postgres] = SimpleQueue()
        for lane in range(lanes):
            self._servers.put(Postgres(folder / f"lane{lane}"))
        self.means = self._stock.means | {"postgresql"}

    def run(self, plan: Plan) -> dict[str, Any]:
        """Run a plan and return what became of it: see ``tests.faults.demands.Findings``."""
        server = self._servers.get()
        folder = Path(tempfile.mkdtemp(prefix=f"run{plan.seed}-", dir=self._folder))
        result: dict[str, Any] = {"seed": plan.seed, "plan": asdict(plan)}
        try:
            with Scene(plan, folder, self._stock, server, self._launcher) as scene:
                result |= asdict(observe(scene))
        except Exception:
            result["complaints"] = ["the runner failed: " + traceback.format_exc()]
        finally:
            server.start()  # what a run that failed has left
            self._servers.put(server)
        if result["complaints"] and self._logs:
            logs = sorted([*folder.glob("*.log"), *folder.glob("data/*/*.log")])
            text = "".join(f"=== {path.name}\n{path.read_text(errors='replace')}" for path in logs)
            (self._logs / f"{plan.seed}.log").write_text(json.dumps(result, indent=1) + "\n" + text)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def close(self) -> None:
        """Stop the servers."""
        while not self._servers.empty():
            self._servers.get().close()


@contextmanager
def stage(lanes: int, logs: Path | None = None, *, has_network: bool = False) -> Iterator[Stage]:
    """Set up a stage in a folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL, started by root, is another user
        opened = Stage(Path(folder), lanes, logs, has_network=has_network)
        try:
            yield opened
        finally:
            opened.close()


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; 1 if any run had something to complain of."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=int, default=1)
    made.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    made.add_argument("--only", choices=FAULTS, help="this fault alone")
    made.add_argument("--lanes", type=int, default=1, help="runs at a time")
    made.add_argument("--network", action="store_true", help="some runs with a real network: takes TensorFlow")
    made.add_argument("--logs", type=Path, help="folder for the logs of runs with complaints")
    made.add_argument("--out", type=Path, help="file that the results are appended to")
    chosen = made.parse_args(arguments)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    bad = 0
    lock = Lock()
    with (
        stage(chosen.lanes, chosen.logs, has_network=chosen.network) as here,
        ThreadPoolExecutor(chosen.lanes) as lanes,
    ):

        def one(seed: int) -> None:
            nonlocal bad
            result = here.run(draw(seed, here.means, only=chosen.only))
            with lock:
                bad += bool(result["complaints"])
                faults = ", ".join(event["fault"] for event in result["plan"]["events"])
                print(f"seed {seed}: {result.get('seconds')} s; {faults}; {result['complaints'] or 'well'}", flush=True)
                if chosen.out:
                    with chosen.out.open("a") as file:
                        file.write(json.dumps(result) + "\n")

        try:
            list(lanes.map(one, range(chosen.seed, chosen.seed + chosen.runs)))
        except KeyboardInterrupt:
            lanes.shutdown(wait=True, cancel_futures=True)  # those that run go on to their end
            raise
    print(f"{chosen.runs} runs, {bad} with complaints")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
