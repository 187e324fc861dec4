"""One image from its URI to pixels: read, digest, decode."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from core.errors import ImageError, StorageError
from core.images import ImageRef
from core.settings import Settings
from core.storage import read_image
from core.verdicts import Outcome, Status
from model.preprocess import decode, difference_hash


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

    def __call__(self, ref: ImageRef) -> Fetched | Outcome:
        """Return the pixels of an image, or its failure.

        Raises:
            StorageError: the storage failed several times in a row; that is no fault of the image.
        """
        digest = None
        try:
            content = self._read(ref.uri)
            digest = sha256(content).digest()[:16]
            image = decode(content, self._preprocess, max_pixels=self._settings.max_pixels)
        except ImageError as error:
            return Outcome(ref, error.status, reason=error.reason, digest=digest)
        return Fetched(ref, image.pixels, digest, image.width, image.height, difference_hash(image.pixels))

    @retry(
        retry=retry_if_exception_type(StorageError),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(4),
        reraise=True,
    )
    def _read(self, uri: str) -> bytes:
        return read_image(uri, roots=self._settings.roots, max_bytes=self._settings.max_bytes)
