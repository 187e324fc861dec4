"""The Celery app of the contenders that use Celery as it comes; their workers import this module by its name."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from celery import Celery, signals
from numpy.typing import NDArray

from contenders import cores, keras_network
from contenders.celery_tasks import ARTIFACT, BROKER, THREADS
from model.preprocess import SIDE, scale

FLUSH_EVERY = 32
FLUSH_SECONDS = 0.5  # the last batch is not full, and waits for this

app = Celery("contenders", broker=os.environ[BROKER], backend=os.environ[BROKER])
app.conf.worker_proc_alive_timeout = 600  # loading TensorFlow takes longer than the 4 s that a child has

try:
    from celery_batches import Batches
except ModuleNotFoundError:
    Batches = None

network: Any = None
decode: Callable[[bytes], NDArray[np.uint8]]
readers: ThreadPoolExecutor


@signals.worker_process_init.connect
def load(**_: Any) -> None:
    """Load the network and warm it up, once in each process of the pool."""
    global network, decode, readers
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(int(os.environ[THREADS]))
    artifact = Path(os.environ[ARTIFACT])
    network = keras_network.load(artifact)
    decode = keras_network.decoder(artifact)
    readers = ThreadPoolExecutor(len(cores()))
    for size in (1, FLUSH_EVERY):
        network.predict_on_batch(np.zeros((size, SIDE, SIDE, 3), np.float32))


@app.task
def ready() -> int:
    """Return which process this is; it is long enough for all of them to get one."""
    time.sleep(0.2)
    return os.getpid()


@app.task
def score(path: str) -> float:
    """Score one picture."""
    pixels = decode(Path(path).read_bytes())
    return float(network.predict_on_batch(scale(pixels[None]))[0, 0])


if Batches:

    @app.task(base=Batches, flush_every=FLUSH_EVERY, flush_interval=FLUSH_SECONDS)
    def score_batch(requests: list[Any]) -> None:
        """Score what has come together."""
        contents = (Path(request.args[0]).read_bytes() for request in requests)
        pixels = np.stack(list(readers.map(decode, contents)))
        scores = network.predict_on_batch(scale(pixels))[:, 0].tolist()
        for request, p_real in zip(requests, scores, strict=True):
            app.backend.mark_as_done(request.id, p_real, request=request)
