"""Decoding HEIC files: an optional library brings libheif, which cv2 does without."""

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ImageError
from core.verdicts import Status

#: What libheif says of a damaged file, by way of its library.
_DAMAGED = (ValueError, EOFError, SyntaxError, RuntimeError, OSError, IndexError)


def stated_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the main image as it is shown, in pixels; zeros if the file does not tell.

    libheif allows its decoder no more pixels than are stated here.

    Args:
        data: the whole file.

    Raises:
        ImageError: the library is not installed.
    """
    try:
        width, height = _library().open_heif(data).size
    except _DAMAGED:
        return 0, 0
    return int(width), int(height)


def decode_heic(data: bytes, *, is_bgr: bool) -> NDArray[np.uint8] | None:
    """Decode the main image, turned as the file says; None if it is damaged.

    What EXIF says of the orientation is a copy of that, and of no account here.

    Args:
        data: the whole file.
        is_bgr: the order of the channels, instead of RGB.

    Returns:
        uint8 of shape (height, width, 3).

    Raises:
        ImageError: it is coded in a way that cannot be decoded, or the library is not installed.
    """
    try:
        image: NDArray[Any] = np.asarray(_library().open_heif(data, bgr_mode=is_bgr))
    except _DAMAGED as error:
        if "compression format" in str(error):
            raise ImageError(Status.UNSUPPORTED, "the HEIC file is coded in another way than HEVC") from error
        return None
    if image.dtype == np.uint16:  # a grey image of 10 or 12 bits, which the library stretches to 16
        image = image >> 8
    image = np.atleast_3d(image)[:, :, :3]
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)), np.uint8)


@cache
def _library() -> ModuleType:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(Status.UNSUPPORTED, "HEIC files need a library: pip install 'facesieve[heic]'") from error
    pillow_heif.options.DECODE_THREADS = 1  # there are threads enough around it
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    return pillow_heif
