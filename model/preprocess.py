"""From the bytes of an image to the input of the network: the one place where that is defined.

Three ways, named by an artifact's manifest:

``card``        BGR, bilinear: what the published model's own snippet serves, bit for bit.
``rgb-area``    RGB; area interpolation when both sides shrink, so that no pixel is skipped, else bilinear.
``rgb-scaled``  RGB, and a third of the time: a JPEG file of at least twice the size is decoded at a half, a quarter or
                an eighth, which the inverse DCT gives for less; what is left is area interpolation if both sides
                shrink to less than a half, else bilinear.

All apply the EXIF orientation, drop alpha, convert grey, 16-bit and CMYK images, and take the first frame of an
animation.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import imagesize
import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.jpeg2000 import has_too_many_parts
from core.verdicts import Status
from model import heic
from model.formats import (
    KNOWN,
    MAX_SCANS,
    ends_early,
    has_too_large_tiles,
    has_too_many_scans,
    recognise,
    still_png,
)

#: Width and height of the network's input, in pixels.
SIDE = 224
#: A pixel divided by this is in [0, 1].
WHITE = 255.0
_FLAGS = {"card": cv2.IMREAD_COLOR_BGR, "rgb-area": cv2.IMREAD_COLOR_RGB, "rgb-scaled": cv2.IMREAD_COLOR_RGB}
#: How cv2 is told to decode at a fraction of the size; it has no name for these in RGB.
_REDUCED = {reduction: 8 * reduction | cv2.IMREAD_COLOR_RGB for reduction in (2, 4, 8)}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image, ready for the network.

    Attributes:
        pixels: uint8 of shape (224, 224, 3), channels in the order of the preset.
        width: of the image as it is shown, before resizing, in pixels.
        height: likewise.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int


def configure_cv2() -> None:
    """Make cv2 fit for a process that decodes in threads of its own; call it once, before the first ``decode``.

    It gets one thread for each call, or its pool would multiply with ours, and does not log about bad images, which
    get a verdict instead. (libpng still writes its own line about a damaged file to stderr.)
    """
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(data: bytes, preset: str, *, max_pixels: int, out: NDArray[np.uint8] | None = None) -> Decoded:
    """Decode and resize one image.

    Args:
        data: the whole file.
        preset: see the head of this module.
        max_pixels: images of more pixels than this are refused from their header, before memory is taken for them.
        out: where the pixels are put, see ``resize``.

    Raises:
        ImageError: the file is empty, cut off, damaged, too large or not an image.
        MemoryError: there is not enough memory for it now.
    """
    image, width, height = _decode_at_most(data, preset, max_pixels=max_pixels, side=SIDE)
    return Decoded(resize(image, preset, out=out), width, height)


def decode_whole(data: bytes, preset: str, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one image at its own size: ``decode`` without the last step, for whoever crops.

    Args:
        data: the whole file.
        preset: tells the order of the channels.
        max_pixels: see ``decode``.

    Returns:
        uint8 of shape (height, width, 3).

    Raises:
        ImageError: as ``decode``.
    """
    return _decode_at_most(data, preset, max_pixels=max_pixels)[0]


def resize(
    image: NDArray[np.uint8], preset: str, side: int = SIDE, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Make an image the network's input.

    Args:
        image: uint8 of shape (height, width, 3).
        preset: tells the interpolation.
        side: of the result, in pixels; training may take a smaller one than serving.
        out: where the result is put, and then what is returned: uint8 of shape (side, side, 3), contiguous.

    Returns:
        uint8 of shape (side, side, 3).
    """
    shrinks = min(image.shape[:2]) / side
    is_area = (preset == "rgb-area" and shrinks >= 1) or (preset == "rgb-scaled" and shrinks >= 2)
    method = cv2.INTER_AREA if is_area else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), out, interpolation=method).astype(np.uint8, copy=False)


def cut(image: NDArray[np.uint8], left: int, top: int, side: int, preset: str) -> NDArray[np.uint8]:
    """Make a square of an image the network's input.

    Args:
        image: as ``decode_whole`` returns it.
        left: edge of the square, in pixels.
        top: edge of the square, in pixels.
        side: of the square, which lies within the image, in pixels.
        preset: tells the interpolation.

    Returns:
        uint8 of shape (224, 224, 3).
    """
    return resize(image[top : top + side, left : left + side], preset)


def as_rgb(image: NDArray[np.uint8], preset: str) -> NDArray[np.uint8]:
    """Return an image, as ``decode_whole`` returns it, with its channels in the order red, green, blue."""
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False) if preset == "card" else image


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """Return 64 bits that stay alike when a picture is resized or compressed again: an image's "dHash".

    Of an 8 by 9 grey version, each bit says whether a pixel is brighter than its left neighbour (Krawetz 2013,
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html).

    Args:
        pixels: uint8 of shape (height, width, 3); the order of the channels hardly matters.

    Returns:
        A signed 64-bit integer, as databases store it.
    """
    # By way of an eighth of the size, which cv2 averages five times as fast as it does uneven parts.
    height, width = pixels.shape[:2]
    eighth = (width // 8, height // 8) if min(width, height) >= SIDE else (width, height)
    small = cv2.resize(cv2.resize(pixels, eighth, interpolation=cv2.INTER_AREA), (9, 8), interpolation=cv2.INTER_AREA)
    grey = small.sum(axis=2, dtype=np.uint16)
    return int(np.packbits(grey[:, 1:] > grey[:, :-1]).view(">i8")[0])


def scale(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pixels in [0, 1], the network's input.

    The engines do this inside the network, where a byte a pixel has to travel and not four. Dividing in float32 gives
    the same bits as the card's division in float64 and cast, for all 256 values.

    Args:
        batch: uint8 of any shape.
    """
    return batch.astype(np.float32) / np.float32(WHITE)


def _decode_at_most(
    data: bytes, preset: str, *, max_pixels: int, side: int | None = None
) -> tuple[NDArray[np.uint8], int, int]:
    """Decode a file, at a fraction of its size if the preset allows it and the short side stays at least ``side``.

    Returns:
        The image, and the width and height of the whole of it, in pixels.
    """
    if not data:
        raise ImageError(Status.TRUNCATED, "the file is empty")
    kind = recognise(data)
    if kind is None:
        raise ImageError(Status.UNSUPPORTED, f"not an image of a known format ({KNOWN})")
    width, height = _stated_size(kind, data)
    _check_pixels(width * height, max_pixels)
    _check_effort(kind, data, width * height)
    reduction = 1
    if kind == "JPEG" and preset == "rgb-scaled" and side:
        reduction = next((n for n in (8, 4, 2) if min(width, height) >= n * side), 1)
    flags = _REDUCED.get(reduction, _FLAGS[preset])
    image = _decode(kind, data, flags) if width * height else None  # without a size, nothing would bound the memory
    if image is None:
        if ends_early(kind, data, width * height):
            raise ImageError(Status.TRUNCATED, f"the {kind} file ends before the image does")
        raise ImageError(Status.UNREADABLE, f"the {kind} file is damaged")
    shown: tuple[int, ...] = image.shape[:2]
    upright, turned = ((-(-a // reduction), -(-b // reduction)) for a, b in ((height, width), (width, height)))
    if reduction == 1 or shown not in (upright, turned):
        # Inside, the image can be larger than the file's header says.
        height, width = (length * reduction for length in shown)
        _check_pixels(width * height, max_pixels)
    elif shown != upright:  # as its EXIF orientation says
        height, width = width, height
    return image.astype(np.uint8, copy=False), width, height


def _stated_size(kind: str, data: bytes) -> tuple[int, int]:
    if kind == "HEIC":
        return heic.stated_size(data)
    width, height = imagesize.get(BytesIO(data))
    return (int(width), int(height)) if width > 0 and height > 0 else (0, 0)


def _check_pixels(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise ImageError(Status.TOO_LARGE, f"{pixels} pixels, the limit is {max_pixels}")


def _check_effort(kind: str, data: bytes, pixels: int) -> None:
    if kind == "JPEG" and has_too_many_scans(data):
        raise ImageError(Status.UNREADABLE, f"the JPEG file has more than {MAX_SCANS} scans")
    if kind == "JPEG2000" and has_too_many_parts(data):
        raise ImageError(
            Status.UNREADABLE, "the JPEG2000 file has more tiles, precincts and layers than can be decoded"
        )
    if kind == "TIFF" and has_too_large_tiles(data, pixels):
        raise ImageError(Status.UNREADABLE, "the TIFF file has tiles far larger than its image")


def _decode(kind: str, data: bytes, flags: int) -> NDArray[Any] | None:
    if kind == "HEIC":
        return heic.decode_heic(data, is_bgr=flags == cv2.IMREAD_COLOR_BGR)
    still = still_png(data) if kind == "PNG" else data
    if still is None:
        return None
    try:
        return cv2.imdecode(np.frombuffer(still, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:  # no fault of the image, and no verdict on it
            raise MemoryError(f"no memory to decode a {kind} file of {len(data)} bytes") from error
        return None
