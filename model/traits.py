"""Cheap properties of an image and its file that say nothing about whether a face in it is real."""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from math import nan

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from model.data import Box
from model.formats import recognise
from model.preprocess import decode_whole, resize

#: A number, nan if the image does not have the property; or one of a few words, None likewise.
Value = float | str | None

_RE_ENCODE = "re-encode both classes alike: one format, the same qualities, the same subsampling"
_RESIZE = "take both classes from the same range of sizes, or resize them alike"
_BLUR = "downscale, blur and sharpen both classes alike, at random"
_COLOUR = "vary the colours of both classes alike, at random; look for studio backgrounds"
_LIGHT = "vary brightness and contrast of both classes alike, at random"
_FRAME = "crop both classes around the face with the same random margin"


@dataclass(frozen=True, slots=True)
class Trait:
    """One property.

    Attributes:
        name: its key in what ``measure`` returns.
        advice: what to do if it differs between the classes, for people.
        is_number: False if it is one of a few words.
    """

    name: str
    advice: str
    is_number: bool = True


TRAITS = (
    Trait("format", _RE_ENCODE, is_number=False),
    Trait("jpeg_tables", _RE_ENCODE, is_number=False),
    Trait("jpeg_sampling", _RE_ENCODE, is_number=False),
    Trait("jpeg_quality", _RE_ENCODE),
    Trait("bytes_per_pixel", "re-encode both classes alike; what stays is detail: see sharpness"),
    Trait("exif", "write the files of both classes without metadata"),
    Trait("width", _RESIZE),
    Trait("height", _RESIZE),
    Trait("aspect", "crop both classes to the same shape"),
    Trait("sharpness", _BLUR),
    Trait("red", _COLOUR),
    Trait("green", _COLOUR),
    Trait("blue", _COLOUR),
    Trait("saturation", _COLOUR),
    Trait("brightness", _LIGHT),
    Trait("contrast", _LIGHT),
    Trait("black_border", "crop black borders off, or draw them on both classes alike, at random"),
    Trait("face_size", _FRAME),
    Trait("face_x", _FRAME),
    Trait("face_y", _FRAME),
)
_EXIF = {"JPEG": b"Exif\0\0", "PNG": b"eXIf", "WebP": b"EXIF"}
#: Mean of the luminance table in Annex K of the JPEG standard (ITU-T T.81), which libjpeg takes as quality 50.
_MEAN_STEP = 57.625
_BORDER = 8
_BLACK = 16


def measure(content: bytes, box: Box | None, *, max_pixels: int) -> dict[str, Value]:
    """Return each of ``TRAITS`` of an image.

    Lengths are in pixels, positions and the face's height in shares of the image, colours and light from 0 to 255.

    Args:
        content: the whole file.
        box: the face's, if known.
        max_pixels: larger images are refused from their header.

    Raises:
        ImageError: it cannot be decoded.
    """
    image = decode_whole(content, "rgb-area", max_pixels=max_pixels)
    height, width = image.shape[:2]
    kind = recognise(content) or ""
    return {
        "format": kind,
        **_measure_jpeg(content if kind == "JPEG" else None),
        "bytes_per_pixel": len(content) / (width * height),
        "exif": float(kind in _EXIF and _EXIF[kind] in content),
        "width": float(width),
        "height": float(height),
        "aspect": width / height,
        **_measure_pixels(resize(image, "rgb-area")),
        **_measure_box(box, width, height),
    }


def _measure_jpeg(content: bytes | None) -> dict[str, Value]:
    unknown: dict[str, Value] = {"jpeg_tables": None, "jpeg_sampling": None, "jpeg_quality": nan}
    if content is None:
        return unknown
    try:
        header = JpegImageFile(BytesIO(content))
        tables = header.quantization
        sampling = " ".join(f"{across}x{down}" for _, across, down, _ in header.layer)
        step = sum(tables[0]) / len(tables[0])
    except Exception:  # Pillow raises errors of a dozen kinds for a damaged header that cv2 forgave
        return unknown
    digest = sha256(repr(sorted(tables.items())).encode()).hexdigest()
    return {"jpeg_tables": digest[:8], "jpeg_sampling": sampling, "jpeg_quality": _quality(step / _MEAN_STEP)}


def _quality(scale: float) -> float:
    """Return the quality, 1 to 100, from which libjpeg's ``jpeg_quality_scaling`` makes a scale of the tables."""
    return 50 / scale if scale > 1 else 100 - 50 * scale


def _measure_pixels(image: NDArray[np.uint8]) -> dict[str, Value]:
    """Measure what the network would see: uint8 of shape (224, 224, 3), RGB."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    red, green, blue = image.mean(axis=(0, 1))
    inner = slice(_BORDER, -_BORDER)
    is_border = np.ones(grey.shape, bool)
    is_border[inner, inner] = False
    return {
        "sharpness": float(np.mean([np.abs(np.diff(grey, 2, axis)).mean() for axis in (0, 1)])),
        "red": float(red),
        "green": float(green),
        "blue": float(blue),
        "saturation": float(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean()),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "black_border": float((grey[is_border] < _BLACK).mean()),
    }


def _measure_box(box: Box | None, width: int, height: int) -> dict[str, Value]:
    if box is None:
        return {"face_size": nan, "face_x": nan, "face_y": nan}
    left, top, right, bottom = box
    return {
        "face_size": (bottom - top) / min(width, height),
        "face_x": (left + right) / 2 / width,
        "face_y": (top + bottom) / 2 / height,
    }
