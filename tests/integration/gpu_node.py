"""A real node whose children load a stand-in for the model: one that imports TensorFlow and scores nothing.

``python -m tests.integration.gpu_node BROKER_URL GPUS SLOTS``; the first module ``tensorflow`` on the path must be one
that tells of its import.
"""

import sys
from pathlib import Path

from core.settings import load_settings
from worker import app
from worker.gpu import plan_slots, visible_gpus
from worker.process import Plan


class Importer:
    """Loads what a worker's process loads, as far as it matters to GPUs."""

    def __init__(self, plan: Plan) -> None:
        from model.runtime import import_tensorflow

        import_tensorflow()


if __name__ == "__main__":
    url, gpus, slots = sys.argv[1:]
    devices = plan_slots(gpus, int(slots), visible_gpus(), cores=2)
    app.WorkerProcess = Importer  # type: ignore[misc,assignment]
    plan = Plan(load_settings(), Path(), "tensorflow", "auto", tuple(devices), app.node_name("gpus"))
    app.run_node(plan, "gpus", url, longest_job=None)
