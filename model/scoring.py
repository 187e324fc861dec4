"""Score labelled images as a worker would: the same decoding, the same predictor. Nothing is left out in silence."""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError, SourceError
from core.progress import ImageProgress
from core.settings import Settings
from model.data import LABELS, Sample
from model.predictor import Predictor
from model.preprocess import configure_cv2, decode, decode_whole, resize
from model.robustness import AS_SERVED, CHANGES, Change

_AS_THEY_ARE = {AS_SERVED: CHANGES[AS_SERVED]}
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be decoded.

    Attributes:
        path: of the file.
        reason: one line for people.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled images with their scores.

    Attributes:
        samples: those that could be decoded, in the order in which they were given.
        p_real: for each change that was asked for, float64 in [0, 1] of shape (len(samples),).
        failures: the others.
    """

    samples: tuple[Sample, ...]
    p_real: dict[str, NDArray[np.float64]]
    failures: tuple[Failure, ...]

    @property
    def is_real(self) -> NDArray[np.bool_]:
        """The labels, of shape (len(samples),)."""
        return np.array([sample.is_real for sample in self.samples])


def score(
    predictor: Predictor,
    samples: Sequence[Sample],
    settings: Settings,
    *,
    doing: str,
    changes: Mapping[str, Change] = _AS_THEY_ARE,
) -> Scored:
    """Decode images in threads and score them in batches.

    Args:
        predictor: of the model.
        samples: labelled images.
        settings: limits on their size, number of threads that decode.
        doing: what this is for, to be shown with the progress.
        changes: what is done to each image before it is resized, by name.

    Raises:
        SourceError: of one class, not one image could be decoded.
        ModelError: as ``Predictor.predict``.
    """
    scored: list[Sample] = []
    failures: list[Failure] = []
    scores = [np.empty((0, len(changes)), np.float32)]
    with ImageProgress(doing) as show:
        for batch, loaded in _load_ahead(predictor, samples, settings, list(changes.values())):
            pixels = [found for found in loaded if not isinstance(found, Failure)]
            failures += [found for found in loaded if isinstance(found, Failure)]
            scored += [sample for sample, found in zip(batch, loaded, strict=True) if not isinstance(found, Failure)]
            if pixels:
                scores.append(predictor.predict(np.concatenate(pixels)).reshape(len(pixels), len(changes)))
            show(len(scored) + len(failures), len(samples))
    _check_classes(scored, failures)
    columns = np.concatenate(scores).astype(np.float64).T
    return Scored(tuple(scored), dict(zip(changes, columns, strict=True)), tuple(failures))


def _load_ahead(
    predictor: Predictor, samples: Sequence[Sample], settings: Settings, changes: Sequence[Change]
) -> Iterator[tuple[Sequence[Sample], list[NDArray[np.uint8] | Failure]]]:
    """Yield batches of images, of which the next ones are decoded while the engine is at work."""
    configure_cv2()
    preset = predictor.manifest.preprocess

    def load(sample: Sample) -> NDArray[np.uint8] | Failure:
        try:
            data = _read(sample, settings)
            if changes == [CHANGES[AS_SERVED]]:
                return decode(data, preset, max_pixels=settings.max_pixels).pixels[None]
            whole = decode_whole(data, preset, max_pixels=settings.max_pixels)
            return np.stack([resize(change(whole, preset), preset) for change in changes])
        except (ImageError, OSError, cv2.error) as error:  # cv2.error: too large for a JPEG, say
            return Failure(str(sample.path), getattr(error, "strerror", None) or str(error))

    size = predictor.batch_size
    pending: deque[tuple[Sequence[Sample], list[Future[NDArray[np.uint8] | Failure]]]] = deque()
    with ThreadPoolExecutor(settings.decode_threads or os.cpu_count() or 1, thread_name_prefix="decode") as threads:
        try:
            for start in range(0, len(samples), size):
                batch = samples[start : start + size]
                pending.append((batch, [threads.submit(load, sample) for sample in batch]))
                if len(pending) > _BATCHES_AHEAD:
                    yield _take(pending)
            while pending:
                yield _take(pending)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _take(
    pending: deque[tuple[Sequence[Sample], list[Future[NDArray[np.uint8] | Failure]]]],
) -> tuple[Sequence[Sample], list[NDArray[np.uint8] | Failure]]:
    batch, futures = pending.popleft()
    return batch, [future.result() for future in futures]


def _read(sample: Sample, settings: Settings) -> bytes:
    size = sample.path.stat().st_size
    if size > settings.max_bytes:
        raise OSError(f"{size} bytes, the limit is {settings.max_bytes}")
    return sample.path.read_bytes()


def _check_classes(scored: Sequence[Sample], failures: Sequence[Failure]) -> None:
    for is_real, label in enumerate(LABELS):
        if not any(sample.is_real == bool(is_real) for sample in scored):
            first = f": {failures[0].path}: {failures[0].reason}" if failures else ""
            raise SourceError(f"not one of the {label} images could be decoded{first}")
