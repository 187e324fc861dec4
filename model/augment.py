"""Random views of an image for training; both classes go through the same ones.

What differs between collections and not between the classes must not tell them apart: how much of the picture the
face fills, how sharp it is, how it was compressed, its colours. So each of these is drawn at random.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data import Box
from model.preprocess import resize

Pixels = NDArray[np.uint8]
Generator = np.random.Generator
_INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def augment(image: Pixels, box: Box | None, recipe: str, rng: Generator, side: int) -> Pixels:
    """Return one random view of an RGB image.

    Args:
        image: uint8 of shape (height, width, 3).
        box: of the face, in pixels; None if unknown.
        recipe: ``default``, ``card`` or ``none``, which is what serving does.
        rng: decides.
        side: of the result, in pixels.

    Returns:
        uint8 of shape (side, side, 3).
    """
    match recipe:
        case "default":
            view = _recolour(_tilt(_crop(image, box, rng), rng), rng)
            if rng.random() < 0.5:  # the other half keeps the finest traces, which are all that some generators leave
                for change in rng.permutation(np.array(_DEGRADATIONS, dtype=object)):
                    view = change(view, rng)
            view = resize(np.ascontiguousarray(view), "rgb-area", side)
            return _erase(_mirror(view, rng), rng)
        case "card":
            return _warp(_mirror(resize(image, "rgb-area", side), rng), rng)
        case "none":
            return resize(image, "rgb-area", side)
    raise ValueError(f"augmentation {recipe!r}")


def _crop(image: Pixels, box: Box | None, rng: Generator) -> Pixels:
    """Cut a square of random margin around the face, or two times in five leave the picture as serving shows it."""
    if rng.random() < 0.4:
        return image
    height, width = image.shape[:2]
    if box is None:
        face, centre_x, centre_y = 0.5 * min(height, width), width / 2, height / 2
    else:
        left, top, right, bottom = box
        face, centre_x, centre_y = max(right - left, bottom - top), (left + right) / 2, (top + bottom) / 2
    size = float(np.clip(face * rng.uniform(1.0, 2.2), 32, min(height, width)))
    jitter = 0.12 * size
    x = int(np.clip(centre_x + rng.uniform(-jitter, jitter) - size / 2, 0, width - size))
    y = int(np.clip(centre_y + rng.uniform(-jitter, jitter) - size / 2, 0, height - size))
    return image[y : y + int(size), x : x + int(size)]


def _mirror(image: Pixels, rng: Generator) -> Pixels:
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def _tilt(image: Pixels, rng: Generator) -> Pixels:
    """Turn a little; the corners turn black, as in collections that were aligned, or repeat the edge."""
    if rng.random() >= 0.1:
        return image
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-15, 15), rng.uniform(0.85, 1.1))
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE]))
    return _as_pixels(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border))


def _lose_detail(image: Pixels, rng: Generator) -> Pixels:
    """Scale down and up again."""
    if rng.random() >= 0.5:
        return image
    factor = rng.uniform(0.3, 1.0)
    height, width = image.shape[:2]
    small = (max(16, round(width * factor)), max(16, round(height * factor)))
    down, up = rng.choice(_INTERPOLATIONS), rng.choice(_INTERPOLATIONS[1:])
    return _as_pixels(
        cv2.resize(cv2.resize(image, small, interpolation=int(down)), (width, height), interpolation=int(up))
    )


def _blur_or_sharpen(image: Pixels, rng: Generator) -> Pixels:
    what = rng.random()
    if what >= 0.6:
        return image
    if what < 0.35:
        return _as_pixels(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.8)))
    amount = rng.uniform(0.3, 2.0)
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.5))
    return _as_pixels(cv2.addWeighted(image, 1 + amount, soft, -amount, 0))


def _compress(image: Pixels, rng: Generator) -> Pixels:
    if rng.random() >= 0.6:
        return image
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 96))])
    return _as_pixels(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB))


def _add_noise(image: Pixels, rng: Generator) -> Pixels:
    if rng.random() >= 0.2:
        return image
    height, width = image.shape[:2]
    bank = _noise()
    if height > bank.shape[0] // 2 or width > bank.shape[1] // 2:
        return image
    y, x = rng.integers(0, bank.shape[0] - height), rng.integers(0, bank.shape[1] - width)
    return _as_pixels(cv2.scaleAdd(bank[y : y + height, x : x + width], rng.uniform(1, 8), image.astype(np.float32)))


def _recolour(image: Pixels, rng: Generator) -> Pixels:
    """Change brightness, contrast, gamma and white balance, and the saturation down to grey."""
    if rng.random() >= 0.6:
        return image
    steps = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    contrast, brightness, gamma = rng.uniform(0.75, 1.3), rng.uniform(-0.12, 0.12), rng.uniform(0.75, 1.3)
    balance = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    curve = ((steps**gamma - 0.5) * contrast + 0.5 + brightness) * balance
    table = np.rint(np.clip(curve, 0, 1) * 255).astype(np.uint8)
    saturation = 0.0 if rng.random() < 0.08 else rng.uniform(0.5, 1.4)
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.tile(_LUMA, (3, 1))
    return _as_pixels(cv2.transform(cv2.LUT(image, table[None]), mix.astype(np.float32)))


def _erase(image: Pixels, rng: Generator) -> Pixels:
    """Grey out a rectangle, so that no single feature decides."""
    if rng.random() >= 0.2:
        return image
    side = image.shape[0]
    height, width = (int(side * part) for part in rng.uniform(0.1, 0.4, 2))
    y, x = rng.integers(0, side - height), rng.integers(0, side - width)
    image = image.copy()
    image[y : y + height, x : x + width] = rng.integers(0, 256, 3, dtype=np.uint8)
    return image


def _warp(image: Pixels, rng: Generator) -> Pixels:
    """The card's augmentation: rotation 20, shear 0.2 (in degrees), shifts and zoom 0.2, edges repeated."""
    side = image.shape[0]
    turn, shear = np.deg2rad(rng.uniform(-20, 20)), np.deg2rad(rng.uniform(-0.2, 0.2))
    zoom_x, zoom_y = rng.uniform(0.8, 1.2, 2)
    move = rng.uniform(-0.2, 0.2, 2) * side
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotate @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]]) @ np.diag([zoom_x, zoom_y])
    centre = np.full(2, (side - 1) / 2)
    offset = centre - matrix @ centre + move
    affine = np.column_stack([matrix, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _as_pixels(cv2.warpAffine(image, affine, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _as_pixels(image: Any) -> Pixels:
    """Give what OpenCV returns its type back; float images are rounded and clipped."""
    pixels: Pixels = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return pixels


@cache
def _noise() -> NDArray[np.float32]:
    """A square of Gaussian noise to cut pieces from: drawing it anew would cost more than all the rest."""
    return np.random.default_rng(0).standard_normal((1024, 1024, 3), np.float32)


_DEGRADATIONS: tuple[Callable[[Pixels, Generator], Pixels], ...] = (
    _lose_detail,
    _blur_or_sharpen,
    _compress,
    _add_noise,
)
