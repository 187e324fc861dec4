"""One image from its URI to pixels: read, digest, decode."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.images import ImageRef
from core.settings import Settings
from core.verdicts import Outcome, Status
from model.preprocess import decode, difference_hash
from worker.reading import ReadAhead


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that is ready to be scored.

    Attributes:
        ref: which one.
        pixels: (224, 224, 3) uint8.
        digest: first 16 bytes of the SHA-256 of the file.
        width: pixels, as stored.
        height: pixels, as stored.
        phash: see ``model.preprocess.difference_hash``.
    """

    ref: ImageRef
    pixels: NDArray[np.uint8]
    digest: bytes
    width: int
    height: int
    phash: int

    def scored(self, p_real: float) -> Outcome:
        """Return the outcome with this score."""
        return Outcome(self.ref, Status.OK, p_real, "", self.digest, self.width, self.height, self.phash)


class Fetcher:
    """Reads and decodes images; safe to call from many threads."""

    def __init__(self, settings: Settings, preprocess: str) -> None:
        self._settings = settings
        self._preprocess = preprocess
        self._reading = ReadAhead(settings)

    def job(self, images: Sequence[ImageRef]) -> AbstractContextManager[None]:
        """Read the images of a job ahead, within a ``with``."""
        return self._reading.job(images)

    def __call__(self, ref: ImageRef) -> Fetched | Outcome:
        """Return the pixels of an image, or its failure.

        Raises:
            StorageError: the storage failed several times in a row; that is no fault of the image.
        """
        digest = None
        try:
            content = self._reading.read(ref)
            digest = sha256(content).digest()[:16]
            image = decode(content, self._preprocess, max_pixels=self._settings.max_pixels)
        except ImageError as error:
            return Outcome(ref, error.status, reason=error.reason, digest=digest)
        return Fetched(ref, image.pixels, digest, image.width, image.height, difference_hash(image.pixels))
