"""Small copies of images, for a page to hold. Needs Pillow."""

import os
import warnings
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from core.errors import ImageError, StorageError
from core.jpeg2000 import has_too_many_parts
from core.settings import Settings
from core.storage import read_image
from core.verdicts import Status

#: Longer side, in pixels: sharp at half the size on a dense screen, good enough at double the size on another.
SIDE = 224
#: Of WebP; a face then takes about 4 KB.
QUALITY = 65
#: Those that a worker scores. Pillow knows more, and runs another program for one of them.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()
    FORMATS += ("HEIF",)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        source: a ``data:`` URI; empty if there is no picture.
        reason: why there is none; else empty.
        is_changed: whether the bytes are others than those that were scored.
    """

    source: str
    reason: str = ""
    is_changed: bool = False


def make_thumbnails(
    images: Sequence[tuple[str, bytes | None, str]], settings: Settings, report: Callable[[int, int], None]
) -> list[Thumbnail]:
    """Make small copies of images, in threads. An image that cannot be read or decoded has a reason instead.

    Args:
        images: URI, digest and fingerprint of each, as in the table of verdicts.
        settings: roots, limits and number of threads, as for a worker.
        report: called with how many are done, and of how many.
    """
    threads = settings.decode_threads or os.cpu_count() or 1
    made = []
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # Pillow's, about large or odd files: the limits are ours. Filters belong to the process, so set them just once.
        warnings.simplefilter("ignore")
        for thumbnail in pool.map(lambda image: make_thumbnail(image[0], image[1], image[2], settings), images):
            made.append(thumbnail)
            report(len(made), len(images))
    return made


def make_thumbnail(uri: str, digest: bytes | None, fingerprint: str, settings: Settings) -> Thumbnail:
    """Make a small copy of one image.

    Args:
        uri: of the image.
        digest: of the bytes that were scored, as in ``Outcome``; None if not known.
        fingerprint: that it had then; empty if not known.
        settings: roots and limits.
    """
    try:
        content = read_image(uri, roots=settings.roots, max_bytes=settings.max_bytes, fingerprint=fingerprint)
    except (ImageError, StorageError) as error:
        return Thumbnail("", str(error))
    is_changed = digest is not None and sha256(content).digest()[: len(digest)] != digest
    try:
        return Thumbnail(to_data_uri(shrink(content, settings, SIDE)), "", is_changed)
    except ImageError as error:
        return Thumbnail("", error.reason, is_changed)


def shrink(content: bytes, settings: Settings, side: int) -> Image.Image:
    """Decode an image, turn it as its camera was held, and make it smaller if need be.

    Args:
        content: of the file.
        settings: limits.
        side: the longest that a side may be, in pixels.

    Raises:
        ImageError: it cannot be decoded, or has too many pixels.
    """
    if content[4:8] == b"jP  " and has_too_many_parts(content):
        raise ImageError(Status.UNREADABLE, "not decoded: it has more tiles, precincts and layers than any real image")
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
            if pixels <= settings.max_pixels:
                image.thumbnail((side, side))  # lets JPEG decode at a fraction of its size
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ImageError(Status.UNSUPPORTED, "not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise ImageError(Status.UNREADABLE, f"not decoded: {error or type(error).__name__}") from error
    raise ImageError(Status.TOO_LARGE, f"{pixels} pixels, the limit is {settings.max_pixels}")


def to_data_uri(image: Image.Image) -> str:
    """Return an image as a ``data:`` URI."""
    return f"data:image/webp;base64,{b64encode(to_webp(image)).decode()}"


def to_webp(image: Image.Image, quality: int = QUALITY) -> bytes:
    """Return an image as a WebP file, without what else its own file holds: places, profiles, comments."""
    colours = image.convert("RGB")
    colours.info.clear()
    target = BytesIO()
    colours.save(target, "WEBP", quality=quality)
    return target.getvalue()
