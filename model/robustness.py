"""What may happen to an image on its way to us: re-compressed, made smaller, blurred, cut, mirrored."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from model.preprocess import SIDE, decode_whole

Pixels = NDArray[np.uint8]
#: Changes a decoded image of any size; gets the preset that tells the order of its channels.
Change = Callable[[Pixels, str], Pixels]

#: Name of the images as they are.
AS_SERVED = "unchanged"


def _jpeg(quality: int) -> Change:
    def compress(image: Pixels, preset: str) -> Pixels:
        in_bgr = image if preset == "card" else image[..., ::-1]  # JPEG treats blue and red differently
        encoded = cv2.imencode(".jpg", in_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return decode_whole(encoded.tobytes(), preset, max_pixels=image.shape[0] * image.shape[1])

    return compress


def _shrink(factor: int) -> Change:
    def shrink(image: Pixels, _: str) -> Pixels:
        height, width = (max(1, side // factor) for side in image.shape[:2])
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    return shrink


def _blur(sigma: float) -> Change:
    """Blur as strongly as this many pixels of the network's input, whatever size the image is."""

    def blur(image: Pixels, _: str) -> Pixels:
        scale = min(image.shape[:2]) / SIDE
        return cv2.GaussianBlur(image, (0, 0), sigma * scale).astype(np.uint8, copy=False)

    return blur


def _crop(share: float) -> Change:
    def crop(image: Pixels, _: str) -> Pixels:
        height, width = image.shape[:2]
        top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
        return image[top : height - top, left : width - left]

    return crop


#: By name, in the order of the report. The first leaves images as they are served.
CHANGES: dict[str, Change] = {
    AS_SERVED: lambda image, _: image,
    "JPEG quality 90": _jpeg(90),
    "JPEG quality 70": _jpeg(70),
    "JPEG quality 50": _jpeg(50),
    "JPEG quality 30": _jpeg(30),
    "half the size": _shrink(2),
    "a quarter of the size": _shrink(4),
    "Gaussian blur, sigma 1.5 px": _blur(1.5),
    "centre crop, 80 % of each side": _crop(0.8),
    "mirrored": lambda image, _: np.ascontiguousarray(image[:, ::-1]),
}
