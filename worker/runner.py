"""The conductor of one job: fetch and decode in threads, predict in micro-batches, and keep the time of each."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import StorageError
from core.images import ImageRef
from core.verdicts import Outcome, Status
from db.store import Delivery
from model.preprocess import SIDE
from worker.fetch import Fetched

Place = NDArray[np.uint8]
Fetch = Callable[[ImageRef, Place | None], Fetched | Outcome]
Result = Fetched | Outcome | StorageError


class Predicts(Protocol):
    """What the runner needs of a predictor."""

    batch_size: int

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return P(real) of shape (n,) for a batch (n, 224, 224, 3)."""
        ...


@dataclass(slots=True)
class Timings:
    """Seconds that a job took: ``decode`` is summed over threads, ``total`` is by the clock."""

    decode: float = 0.0
    predict: float = 0.0
    total: float = 0.0


@dataclass(slots=True)
class _Waiting:
    """Images whose scores are not all known yet, in the order in which their crops go to the predictor.

    Attributes:
        images: with their positions.
        crops: of theirs, those that have no score yet.
        scores: of theirs, the first ones.
    """

    images: deque[tuple[int, Fetched]] = field(default_factory=deque)
    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def add(self, position: int, image: Fetched) -> None:
        """Let one more image wait."""
        self.images.append((position, image))
        self.crops.extend(image.crops)

    def take(self, most: int) -> NDArray[np.uint8]:
        """Return the next crops as one array; their scores are to be put into ``scores``."""
        crops, self.crops = self.crops[:most], self.crops[most:]
        whole = crops[0].base
        # In the places that were meant for them, they are a batch already; after a failure they are not.
        if whole is not None and len(whole) == len(crops) and all(crop.base is whole for crop in crops):
            return whole
        return np.stack(crops)

    def finish(self) -> Iterator[tuple[int, Outcome]]:
        """Take out the images whose crops all have scores."""
        while self.images and len(self.scores) >= len(self.images[0][1].crops):
            position, image = self.images.popleft()
            scores, self.scores = self.scores[: len(image.crops)], self.scores[len(image.crops) :]
            yield position, image.scored(scores)


class Runner:
    """Runs jobs with one predictor; not safe to use from several threads."""

    def __init__(self, fetch: Fetch, predictor: Predicts, *, threads: int) -> None:
        self._fetch = fetch
        self._predictor = predictor
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # A thread takes several images at a time: handing over each by itself costs a tenth of decoding it.
        self._piece = max(1, predictor.batch_size // threads)
        # Decoded while a batch is in the engine, and no more: two further batches, and what the threads are at.
        self._pieces_ahead = threads + -(-2 * predictor.batch_size // self._piece)

    def run(
        self, images: Sequence[ImageRef], delivery: Delivery, mark: Callable[[int | None], None]
    ) -> tuple[list[Outcome], Timings]:
        """Score the images of a job.

        Args:
            images: of the job.
            delivery: its history. If a worker died in it before, images are decoded one at a time, each marked first,
                so that the ledger knows which one it was, should it happen again.
            mark: called with the position of the image that is decoded next, or None when none is.

        Returns:
            One outcome for each image, in their order, and how long it took.

        Raises:
            StorageError: not one image could be read, for a reason that is not theirs.
        """
        timings = Timings()
        started = time.perf_counter()
        fetched = (
            self._fetch_carefully(images, delivery, mark, timings)
            if delivery.losses
            else self._fetch_ahead(images, timings)
        )
        outcomes: list[Outcome | None] = [None] * len(images)
        waiting = _Waiting()
        faults = 0
        for position, result in fetched:
            if isinstance(result, Fetched):
                waiting.add(position, result)
                while len(waiting.crops) >= self._predictor.batch_size:
                    self._predict(waiting, outcomes, delivery, mark, timings)
            elif isinstance(result, Outcome):
                outcomes[position] = result
            else:
                faults += 1
                if faults == len(images):
                    raise result  # not one could be read: the storage is at fault, not the images
                outcomes[position] = Outcome(images[position], Status.UNREADABLE, reason=str(result))
        if waiting.crops:
            self._predict(waiting, outcomes, delivery, mark, timings)
        timings.total = time.perf_counter() - started
        return [outcome for outcome in outcomes if outcome is not None], timings

    def _fetch_ahead(self, images: Sequence[ImageRef], timings: Timings) -> Iterator[tuple[int, Result]]:
        pending: deque[Future[tuple[list[Result], float]]] = deque()
        upcoming = (images[start : start + self._piece] for start in range(0, len(images), self._piece))
        places = self._places()
        position = 0
        try:
            while position < len(images):
                while len(pending) < self._pieces_ahead and (piece := next(upcoming, None)) is not None:
                    pending.append(self._threads.submit(self._timed_fetch, piece, list(islice(places, len(piece)))))
                results, seconds = pending.popleft().result()
                timings.decode += seconds
                for result in results:
                    yield position, result
                    position += 1
        finally:
            for future in pending:
                future.cancel()

    def _fetch_carefully(
        self, images: Sequence[ImageRef], delivery: Delivery, mark: Callable[[int | None], None], timings: Timings
    ) -> Iterator[tuple[int, Result]]:
        for position in _suspect_first(len(images), delivery.suspect):
            ref = images[position]
            if position in delivery.crashed:
                yield position, Outcome(ref, Status.CRASHED, reason="decoding it killed the worker process twice")
                continue
            mark(position)
            (result,), seconds = self._timed_fetch([ref], [None])
            timings.decode += seconds
            yield position, result

    def _places(self) -> Iterator[Place]:
        """Yield a place for each image's pixels, batch after batch, so that none has to be copied into its batch."""
        while True:
            yield from np.empty((self._predictor.batch_size, SIDE, SIDE, 3), np.uint8)

    def _timed_fetch(self, piece: Sequence[ImageRef], places: Sequence[Place | None]) -> tuple[list[Result], float]:
        started = time.perf_counter()
        results: list[Result] = []
        for ref, place in zip(piece, places, strict=True):
            try:
                results.append(self._fetch(ref, place))
            except StorageError as error:
                results.append(error)
        return results, time.perf_counter() - started

    def _predict(
        self,
        waiting: _Waiting,
        outcomes: list[Outcome | None],
        delivery: Delivery,
        mark: Callable[[int | None], None],
        timings: Timings,
    ) -> None:
        """Score a batch of what waits."""
        if delivery.losses:
            mark(None)  # a death in the engine is no image's fault
        started = time.perf_counter()
        batch = waiting.take(self._predictor.batch_size)
        scores = self._predictor.predict(batch)
        timings.predict += time.perf_counter() - started
        if scores.shape != (len(batch),):
            raise ValueError(f"predictor returned shape {scores.shape} for {len(batch)} images")
        waiting.scores.extend(scores.tolist())
        for position, outcome in waiting.finish():
            outcomes[position] = outcome


def _suspect_first(length: int, suspect: int | None) -> Iterable[int]:
    if suspect is not None and suspect < length:
        yield suspect
    yield from (position for position in range(length) if position != suspect)
