"""The name of one image."""

from dataclasses import dataclass
from hashlib import sha256
from posixpath import splitext

#: What can be decoded, HEIC with an optional library. A producer passes over others unless an --include asks for them.
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe jfif png webp bmp dib tif tiff gif avif heic heif jp2 ppm pgm pbm".split()  # noqa: SIM905
)

#: Fingerprint of what nobody has looked at, and that is taken to stay what it was: it is scored once.
UNCHANGING = "-"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image that was listed, without its pixels.

    Attributes:
        uri: see ``core.uris``; every name survives JSON and SQL.
        fingerprint: identity of the content: ``size-mtime`` (bytes, nanoseconds) of a file, the ETag of an object; of a
            member that of its archive, and where it stands; empty if it could not be looked at; ``UNCHANGING`` if
            that does not matter.
        size_bytes: size when listed.
        offset: where its header stands in the tar or zip that it is a member of, so that no worker has to search;
            in a zip, that is its entry in the directory. None for any other image.
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
