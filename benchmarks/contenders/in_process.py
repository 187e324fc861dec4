"""The limit of our own parts: the worker's decoding and engine in processes of a script, no queue, no database."""

import multiprocessing
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contenders import Measured, Task, cores
from model.predictor import Predictor, load_predictor
from model.preprocess import SIDE, configure_cv2, decode

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
    """Return the scores of pictures, decoded in threads, into their batch, while earlier ones are predicted."""
    most = _predictor.batch_size
    size = max(1, most // _threads)  # that a thread takes at a time, as in a worker
    pending: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
    scores: list[float] = []
    with ThreadPoolExecutor(_threads) as pool:
        for first in range(0, len(files), most):
            some = files[first : first + most]
            batch = np.empty((len(some), SIDE, SIDE, 3), np.uint8)
            pieces = [slice(start, start + size) for start in range(0, len(some), size)]
            pending.append((batch, [pool.submit(_decode, some[piece], batch[piece]) for piece in pieces]))
            if len(pending) > 2:
                scores += _predict(*pending.popleft())
        while pending:
            scores += _predict(*pending.popleft())
    return scores


def _predict(batch: NDArray[np.uint8], decoded: Sequence[Future[None]]) -> list[float]:
    for piece in decoded:
        piece.result()
    scores: list[float] = _predictor.predict(batch).tolist()
    return scores


def _decode(files: Sequence[Path], places: NDArray[np.uint8]) -> None:
    preset = _predictor.manifest.preprocess
    for file, place in zip(files, places, strict=True):
        decode(file.read_bytes(), preset, max_pixels=MAX_PIXELS, out=place)
