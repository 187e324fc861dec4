"""Frames with several people: the example portraits, pasted on a drawn background."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

EXAMPLES = Path(__file__).parent.parent / "examples" / "faces"

#: A portrait's name, and the left edge, upper edge and side of where it is pasted, in pixels.
Pasted = tuple[str, int, int, int]


def draw_background(width: int, height: int) -> NDArray[np.uint8]:
    """Draw what nobody takes for a face: a shaded wall with frames on it, as RGB."""
    shade = np.linspace(90, 180, width)[None, :] + np.linspace(-40, 40, height)[:, None]
    wall = np.repeat(shade[..., None], 3, axis=2) + np.array([12, 0, -12])
    image = np.ascontiguousarray(wall.clip(0, 255).astype(np.uint8))
    for number in range(5):
        x, y = width * number // 5, height * (number % 3) // 3
        cv2.rectangle(image, (x, y), (x + width // 12, y + height // 9), (60 + 30 * number, 90, 120), -1)
    return image


def draw_frame(width: int, height: int, pasted: Sequence[Pasted]) -> NDArray[np.uint8]:
    """Draw a background with portraits, as RGB of shape (height, width, 3)."""
    image = draw_background(width, height)
    for name, x, y, side in pasted:
        portrait = cv2.imread(str(EXAMPLES / name), cv2.IMREAD_COLOR_RGB)
        method = cv2.INTER_AREA if side < len(portrait) else cv2.INTER_CUBIC
        image[y : y + side, x : x + side] = cv2.resize(portrait, (side, side), interpolation=method)
    return image


def save_frame(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an RGB image as a JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    return path
