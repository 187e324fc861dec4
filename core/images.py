"""The name of one image."""

from dataclasses import dataclass
from hashlib import sha256
from posixpath import splitext

#: What OpenCV decodes. A producer passes over others unless an --include asks for them.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp dib tif tiff gif avif jp2 ppm pgm pbm".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image that was listed, without its pixels.

    Attributes:
        uri: see ``core.uris``; every name survives JSON and SQL.
        fingerprint: identity of the content: ``size-mtime`` (bytes, nanoseconds) of a file, the ETag of an object;
            empty if it could not be looked at.
        size_bytes: size when listed.
        offset: where its bytes begin in the tar that it is a member of; None for any other image.
    """

    uri: str
    fingerprint: str
    size_bytes: int
    offset: int | None = None

    @property
    def id(self) -> bytes:
        """16 bytes that stand for the URI in the database: the start of its SHA-256."""
        return sha256(self.uri.encode()).digest()[:16]


def has_image_suffix(path: str) -> bool:
    """Return whether a file is an image by its name."""
    return splitext(path)[1].lower() in IMAGE_SUFFIXES
