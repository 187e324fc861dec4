"""The images of a training, decoded once, drawn and augmented in threads while the network learns."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError, SourceError
from model.augment import augment
from model.data import Sample
from model.preprocess import SIDE, configure_cv2, decode, decode_whole
from model.recipe import Recipe

#: Images, 1 for real and 0 for generated, and the number of the source of each.
Batch = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]
#: Batches that are made ahead of the network.
_AHEAD = 4
_MAX_PIXELS = 64_000_000


class Feed:
    """Batches of augmented images. The same seed and epoch give the same images in the same order."""

    def __init__(
        self, samples: Sequence[Sample], recipe: Recipe, *, threads: int = 2, cache_bytes: int = 4 << 30
    ) -> None:
        """Decode as many images as the cache holds; the others are decoded each time.

        Args:
            samples: of the training.
            recipe: tells how they are drawn and augmented.
            threads: that decode and augment.
            cache_bytes: memory for decoded images.

        Raises:
            SourceError: an image cannot be read.
        """
        configure_cv2()
        self._samples = samples
        self._recipe = recipe
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feed")
        keys = [(sample.is_real, sample.source) for sample in samples]
        #: Of the training images, real or generated, in the order of their numbers.
        self.sources = sorted(set(keys))
        self._source = np.array([self.sources.index(key) for key in keys])
        self._cache: dict[int, NDArray[np.uint8]] = {}
        for index, image in enumerate(self._pool.map(self._decode, samples)):
            if (cache_bytes := cache_bytes - image.nbytes) < 0:
                break
            self._cache[index] = image

    @property
    def steps(self) -> int:
        """Batches of an epoch; images that fill no whole batch are left for another epoch."""
        return max(1, len(self._samples) // self._recipe.batch_size)

    def order(self, epoch: int, losses: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
        """Return the indices of the samples of an epoch, in their order.

        Args:
            epoch: counted from 0.
            losses: mean training loss of each source until now; None before the first epoch.
        """
        count, rng = len(self._samples), np.random.default_rng((self._recipe.seed, epoch))
        if self._recipe.balance is None:
            return rng.permutation(count)
        return rng.choice(count, count, p=self._chances(self._recipe.balance, losses))

    def epoch(self, epoch: int, losses: NDArray[np.float64] | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        Args:
            epoch: counted from 0.
            losses: see ``order``.

        Yields:
            uint8 of shape (n, side, side, 3), float32 of shape (n, 1), and int of shape (n,).
        """
        side, size = self._recipe.side, self._recipe.batch_size
        order = self.order(epoch, losses)
        jobs = iter([(epoch, start, order[start : start + size], side) for start in range(0, self.steps * size, size)])
        running = deque(self._pool.submit(self._make, *job) for job in islice(jobs, _AHEAD))
        while running:
            batch = running.popleft().result()
            running.extend(self._pool.submit(self._make, *job) for job in islice(jobs, 1))
            yield batch

    def _make(self, epoch: int, start: int, indices: NDArray[np.int64], side: int) -> Batch:
        views = []
        for place, index in enumerate(indices, start):
            rng = np.random.default_rng((self._recipe.seed, epoch, place))
            sample = self._samples[index]
            image = self._cache[index] if index in self._cache else self._decode(sample)
            views.append(augment(image, sample.box, self._recipe.augmentation, rng, side))
        return np.stack(views), labels([self._samples[index] for index in indices]), self._source[indices]

    def _chances(self, power: float, losses: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the probability to draw each image: the classes alike, the sources of each as the recipe says."""
        sizes = np.bincount(self._source)
        is_real = np.array([real for real, _ in self.sources])
        shares = sizes**power
        for label in (False, True):
            chosen = is_real == label
            if losses is not None:
                focus = self._recipe.focus
                shares[chosen] *= np.clip(losses[chosen] / losses[chosen].mean(), 1 / focus, focus)
            shares[chosen] /= 2 * shares[chosen].sum()
        chances: NDArray[np.float64] = (shares / sizes)[self._source]
        return chances

    def _decode(self, sample: Sample) -> NDArray[np.uint8]:
        try:
            return decode_whole(sample.path.read_bytes(), self._recipe.preprocess, max_pixels=_MAX_PIXELS)
        except (OSError, ImageError) as error:
            raise SourceError(f"{sample.path} cannot be trained on: {error}") from error


def serving_pixels(samples: Sequence[Sample], preprocess: str) -> NDArray[np.uint8]:
    """Return images as a worker would feed them to the network: uint8 of shape (n, 224, 224, 3).

    Raises:
        SourceError: an image cannot be read.
    """
    pixels = np.empty((len(samples), SIDE, SIDE, 3), np.uint8)

    def fill(place: int) -> None:
        try:
            pixels[place] = decode(samples[place].path.read_bytes(), preprocess, max_pixels=_MAX_PIXELS).pixels
        except (OSError, ImageError) as error:
            raise SourceError(f"{samples[place].path} cannot be read: {error}") from error

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(len(samples))))
    return pixels


def labels(samples: Sequence[Sample]) -> NDArray[np.float32]:
    """Return 1 for real and 0 for generated: float32 of shape (n, 1)."""
    return np.array([[sample.is_real] for sample in samples], np.float32)
