"""One image from its URI to pixels: read, digest, decode, and find its faces where that is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.images import ImageRef
from core.settings import Settings
from core.verdicts import Face, FaceVerdict, Outcome, Status
from model.faces import FaceDetector, cut_face
from model.preprocess import as_rgb, decode, decode_whole, difference_hash, resize
from worker.reading import ReadAhead


@dataclass(frozen=True, slots=True)
class Fetched:
    """An image that is ready to be scored.

    Attributes:
        ref: which one.
        crops: what the network scores, each (224, 224, 3) uint8: the whole image, or each face.
        digest: first 16 bytes of the SHA-256 of the file.
        width: pixels, as stored.
        height: pixels, as stored.
        phash: see ``model.preprocess.difference_hash``.
        faces: that the crops show; empty if it is the whole image.
    """

    ref: ImageRef
    crops: tuple[NDArray[np.uint8], ...]
    digest: bytes
    width: int
    height: int
    phash: int
    faces: tuple[Face, ...] = ()

    def scored(self, scores: Sequence[float]) -> Outcome:
        """Return the outcome with the score of each crop; that of the most generated one is the image's."""
        faces = tuple(map(FaceVerdict, self.faces, scores)) if self.faces else ()
        return Outcome(
            self.ref, Status.OK, min(scores), "", self.digest, self.width, self.height, self.phash, faces
        )  # fmt: skip


class Fetcher:
    """Reads and decodes images; safe to call from many threads."""

    def __init__(self, settings: Settings, preprocess: str) -> None:
        self._settings = settings
        self._preprocess = preprocess
        self._reading = ReadAhead(settings)
        self._detector: FaceDetector | None = None

    @contextmanager
    def job(self, images: Sequence[ImageRef], detector: FaceDetector | None = None) -> Iterator[None]:
        """Read the images of a job ahead, within a ``with``.

        Args:
            images: of the job.
            detector: finds the faces that are scored; None: whole images are.
        """
        self._detector = detector
        with self._reading.job(images):
            yield

    def __call__(self, ref: ImageRef, place: NDArray[np.uint8] | None = None) -> Fetched | Outcome:
        """Return the pixels of an image, or why there are none.

        Args:
            ref: which image.
            place: for its pixels, (224, 224, 3) uint8, if it is scored as a whole; None: they get one of their own.

        Raises:
            StorageError: the storage failed several times in a row; that is no fault of the image.
        """
        digest = None
        try:
            content = self._reading.read(ref)
            digest = sha256(content).digest()[:16]
            if self._detector is not None:
                return self._fetch_faces(ref, content, digest, self._detector)
            image = decode(content, self._preprocess, max_pixels=self._settings.max_pixels, out=place)
        except ImageError as error:
            return Outcome(ref, error.status, reason=error.reason, digest=digest)
        return Fetched(ref, (image.pixels,), digest, image.width, image.height, difference_hash(image.pixels))

    def _fetch_faces(self, ref: ImageRef, content: bytes, digest: bytes, detector: FaceDetector) -> Fetched | Outcome:
        image = decode_whole(content, self._preprocess, max_pixels=self._settings.max_pixels)
        height, width = image.shape[:2]
        phash = difference_hash(resize(image, self._preprocess))
        faces = detector.find(as_rgb(image, self._preprocess))
        if not faces:
            return Outcome(ref, Status.NO_FACE, None, "no face was found", digest, width, height, phash)
        crops = tuple(cut_face(image, face, self._preprocess) for face in faces)
        return Fetched(ref, crops, digest, width, height, phash, tuple(faces))
