"""A real node, with Celery's pool and all that watches it, whose children sleep and die as their jobs say: no model.

``python -m tests.integration.lazy_node BROKER_URL [NAME=SECONDS ...]`` runs one in the data directory of its
environment; the names are constants of ``worker.vigil``, ``worker.pool`` and ``worker.app``. A job's payload is
``{"sleep": seconds}``, with ``{"die": "SIGKILL"}`` or ``{"exit": code}`` if need be; the file ``done`` in the data
directory gets a line for each that ended. While a file ``deaf`` is there, nothing is taken from Redis; one called
``hang`` blocks the event loop, and with one called ``slow`` a child loads for ten minutes.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from kombu.transport import redis

from core.logs import set_up
from core.settings import Settings, load_settings
from worker import alive, app, pool, vigil
from worker.process import Plan

MODEL = "lazy"
CHILDREN = 2


class Sleeper:
    """Stands in for ``worker.process.WorkerProcess``."""

    def __init__(self, plan: Plan) -> None:
        self._done = plan.settings.data_dir / "done"
        if (plan.settings.data_dir / "slow").exists():
            time.sleep(600)

    def run(self, message_id: str, payload: dict[str, Any], signature: object) -> None:
        time.sleep(payload.get("sleep", 0.0))
        if "die" in payload:
            os.kill(os.getpid(), signal.Signals[payload["die"]])
        if "exit" in payload:
            os._exit(payload["exit"])
        with self._done.open("a") as done:
            done.write(f"{message_id}\n")


def break_at_will(folder: Path) -> None:
    """Let files turn the consumer deaf, as Celery's issue 10346 does, or block its loop."""
    can_consume = redis.QoS.can_consume

    def can(qos: Any) -> bool:
        while (folder / "hang").exists():
            time.sleep(0.05)
        return bool(can_consume(qos)) and not (folder / "deaf").exists()

    redis.QoS.can_consume = can


def main(url: str, settings: Settings) -> None:
    """Run the node until it is told to stop."""
    app.WorkerProcess = Sleeper  # type: ignore[misc,assignment]
    settings.data_dir.mkdir(exist_ok=True)
    break_at_will(settings.data_dir)
    plan = Plan(settings, Path(), "none", "none", ("-1",) * CHILDREN, app.node_name(MODEL))
    app.run_node(plan, MODEL, url, longest_job=None)


if __name__ == "__main__":
    for word in sys.argv[2:]:
        name, seconds = word.split("=")
        for module in (alive, app, vigil, pool):
            if hasattr(module, name):
                setattr(module, name, float(seconds))
    found = load_settings()
    set_up(found.log)
    main(sys.argv[1], found)
