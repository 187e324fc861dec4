"""Ray Data: files read and decoded by its tasks, scored by ``map_batches`` in actors that hold the network."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from contenders import Measured, Task, cores, keras_network
from model.preprocess import SIDE, scale

Batch = dict[str, Any]
STORE_BYTES = 2**30
ACTOR = "actor"  # a resource of which each actor takes one


class Scorer:
    """An actor: loads the network once."""

    def __init__(self, artifact: Path, batch: int) -> None:
        self._network = keras_network.load(artifact)
        self._network.predict_on_batch(np.zeros((batch, SIDE, SIDE, 3), np.float32))
        self._ready_at = time.monotonic()

    def __call__(self, rows: Batch) -> Batch:
        """Score a batch, and tell when this actor was ready and when it was done."""
        scores = self._network.predict_on_batch(scale(rows["pixels"]))[:, 0]
        times = {"ready_at": self._ready_at, "done_at": time.monotonic()}
        return {"path": rows["path"], "p_real": scores} | {name: np.full(len(scores), at) for name, at in times.items()}


def measure(task: Task, actors: int, batch: int) -> Measured:
    """Run the pipeline once; the time is from when the last actor was ready to the last batch.

    What was decoded before the actors were ready is a present to Ray.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed: pip install -c constraints.txt --group bench") from error
    files = [str(path) for path in task.files]
    ray.init(
        num_cpus=len(cores()),
        resources={ACTOR: actors},
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=STORE_BYTES,
    )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        decoded = ray.data.read_binary_files(files, include_paths=True).map_batches(
            _decode, fn_args=(task.artifact,), batch_size=batch
        )
        scored = decoded.map_batches(
            Scorer,
            fn_constructor_args=(task.artifact, batch),
            batch_size=batch,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=len(cores()) / 2 / actors,  # the other half reads and decodes
            resources={ACTOR: 1},  # or Ray might fuse the two steps, and pictures would be decoded by the actor
        )
        rows = scored.take_all()
    finally:
        ray.shutdown()
    found = {row["path"]: row["p_real"] for row in rows}
    seconds = max(row["done_at"] for row in rows) - max(row["ready_at"] for row in rows)
    return Measured(seconds, [float(found[path]) for path in files])


def _decode(rows: Batch, artifact: Path) -> Batch:
    decode = keras_network.decoder(artifact)
    return {"path": rows["path"], "pixels": np.stack([decode(content) for content in rows["bytes"]])}
