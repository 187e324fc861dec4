"""The limit of our own parts: the worker's decoding and engine in processes of a script, no queue, no database."""

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contenders import Measured, Task, cores
from model.predictor import Predictor, load_predictor
from model.preprocess import configure_cv2, decode

START_SECONDS = 300
PART = 256  # pictures that a process takes at a time
MAX_PIXELS = 100_000_000

_predictor: Predictor
_barrier: Any
_threads: int


def measure(task: Task, processes: int) -> Measured:
    """Score pictures in some processes, each with its share of the cores: threads that decode, and an engine."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes, timeout=START_SECONDS)
    threads = max(1, len(cores()) // processes)
    files = task.files
    parts = [files[first : first + PART] for first in range(0, len(files), PART)]
    with ProcessPoolExecutor(processes, context, _load, (task, threads, barrier)) as pool:
        list(pool.map(_meet, range(processes)))
        started = time.perf_counter()
        scores = [score for part in pool.map(_score, parts) for score in part]
        seconds = time.perf_counter() - started
        engine = pool.submit(_engine).result()
    return Measured(seconds, scores, {"engine": engine})


def _load(task: Task, threads: int, barrier: Any) -> None:
    global _predictor, _barrier, _threads
    configure_cv2()
    _predictor = load_predictor(task.artifact, engine="auto", cache=task.cache, threads=threads)
    _predictor.warm_up()
    _barrier, _threads = barrier, threads


def _meet(_: int) -> None:
    """Return when all processes are ready: none can take two of these."""
    _barrier.wait()


def _engine() -> str:
    return f"{_predictor.engine}, {_predictor.precision}"


def _score(files: Sequence[Path]) -> list[float]:
    scores: list[float] = []
    pixels = _pixels(files)
    while batch := list(islice(pixels, _predictor.batch_size)):
        scores += _predictor.predict(np.stack(batch)).tolist()
    return scores


def _pixels(files: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures in their order, decoded in threads while a batch is predicted."""
    size = max(1, _predictor.batch_size // _threads)  # that a thread takes at a time, as in a worker
    ahead = _threads + -(-2 * _predictor.batch_size // size)
    pending: deque[Future[list[NDArray[np.uint8]]]] = deque()
    with ThreadPoolExecutor(_threads) as pool:
        for first in range(0, len(files), size):
            pending.append(pool.submit(_decode, files[first : first + size]))
            if len(pending) >= ahead:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _decode(files: Sequence[Path]) -> list[NDArray[np.uint8]]:
    preset = _predictor.manifest.preprocess
    return [decode(file.read_bytes(), preset, max_pixels=MAX_PIXELS).pixels for file in files]
