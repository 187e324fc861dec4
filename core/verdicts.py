"""What the worker knows of one image once it is done with it."""

from dataclasses import dataclass
from enum import StrEnum

from core.images import ImageRef


class Status(StrEnum):
    """What became of one image. Everything but ``ANSWERS`` is a named failure."""

    OK = "ok"  # scored
    NO_FACE = "no_face"  # looked for faces, as was asked, and found none
    UNREADABLE = "unreadable"  # known format, broken content, or no permission to read
    TRUNCATED = "truncated"  # the file ends before the image does
    TOO_LARGE = "too_large"  # more bytes or pixels than the settings allow
    NOT_FOUND = "not_found"  # listed, but gone when the worker came
    UNSUPPORTED = "unsupported"  # not an image, or of a format that cannot be decoded
    CRASHED = "crashed"  # decoding it killed the worker process, twice


#: With one of these an image is done: nothing failed that could be tried again.
ANSWERS = (Status.OK, Status.NO_FACE)


@dataclass(frozen=True, slots=True)
class Face:
    """Where a face is in an image, in pixels of the image as it is shown; the box lies within the image.

    Attributes:
        x: left edge.
        y: upper edge.
        width: of the box.
        height: of the box.
        confidence: of the detector, in [0, 1].
    """

    x: int
    y: int
    width: int
    height: int
    confidence: float


@dataclass(frozen=True, slots=True)
class FaceVerdict:
    """The score of one face.

    Attributes:
        face: which one.
        p_real: probability in [0, 1] that it is real.
    """

    face: Face
    p_real: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one image.

    Attributes:
        ref: which image.
        status: what became of it.
        p_real: probability in [0, 1] that the photo is of a real face (the sigmoid's output); where faces were looked
            for, that of the most generated one; None unless OK.
        reason: one line that explains a failure; empty if OK.
        digest: first 16 bytes of the SHA-256 of the bytes that were scored; None if they could not be read.
        width: pixels, before any resizing; None if not known.
        height: pixels, before any resizing; None if not known.
        phash: 64-bit difference hash of what was decoded, as a signed integer; None if it was not.
        faces: the largest first; empty unless faces were looked for.
    """

    ref: ImageRef
    status: Status
    p_real: float | None = None
    reason: str = ""
    digest: bytes | None = None
    width: int | None = None
    height: int | None = None
    phash: int | None = None
    faces: tuple[FaceVerdict, ...] = ()
