"""Small, sound images in every format that is decoded, and in as many of its kinds as can be drawn here."""

import struct
import zlib
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pillow_heif
from PIL import Image

from tests.pictured import draw_face

WIDTH, HEIGHT = 44, 34


@dataclass(frozen=True, slots=True)
class Seed:
    """One sound image.

    Attributes:
        name: of its kind, such as ``PNG palette``.
        format: as ``model.formats.recognise`` names it.
        content: of the file.
    """

    name: str
    format: str
    content: bytes


#: What Pillow writes: format, kind, mode of the picture, options.
_BY_PILLOW: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("JPEG", "baseline", "RGB", {}),
    ("JPEG", "progressive", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "grey", "L", {"optimize": True}),
    ("JPEG", "CMYK", "CMYK", {}),
    ("JPEG", "restarts", "RGB", {"restart_marker_blocks": 2}),
    ("JPEG", "comment and profile", "RGB", {"comment": b"drawn", "icc_profile": bytes(200)}),
    ("PNG", "palette", "P", {}),
    ("PNG", "one bit", "1", {}),
    ("PNG", "grey with alpha", "LA", {}),
    ("PNG", "alpha and profile", "RGBA", {"icc_profile": bytes(200), "dpi": (72, 72)}),
    ("PNG", "animated", "RGB", {"save_all": True}),
    ("PNG", "animated with a hidden image", "RGB", {"save_all": True, "default_image": True}),
    ("WebP", "lossy", "RGB", {}),
    ("WebP", "lossless", "RGB", {"lossless": True}),
    ("WebP", "alpha and profile", "RGBA", {"icc_profile": bytes(200)}),
    ("WebP", "animated", "RGB", {"save_all": True}),
    ("GIF", "still", "P", {}),
    ("GIF", "animated", "P", {"save_all": True, "transparency": 0, "loop": 0}),
    ("BMP", "24 bits", "RGB", {}),
    ("BMP", "32 bits", "RGBA", {}),
    ("BMP", "palette", "P", {}),
    ("BMP", "one bit", "1", {}),
    ("TIFF", "LZW", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "deflate", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "PackBits", "RGB", {"compression": "packbits"}),
    ("TIFF", "JPEG", "RGB", {"compression": "jpeg"}),
    ("TIFF", "fax", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", "CMYK", {}),
    ("TIFF", "palette", "P", {}),
    ("TIFF", "Lab", "LAB", {}),
    ("TIFF", "two pages", "RGB", {"save_all": True}),
    ("AVIF", "colour", "RGB", {}),
    ("AVIF", "alpha", "RGBA", {}),
    ("AVIF", "animated", "RGB", {"save_all": True}),
    ("HEIC", "colour", "RGB", {}),
    ("HEIC", "alpha", "RGBA", {}),
    ("HEIC", "two images", "RGB", {"save_all": True}),
    ("JPEG2000", "colour", "RGB", {}),
    ("JPEG2000", "lossy, in tiles", "RGB", {"irreversible": True, "quality_layers": [20], "tile_size": (16, 16)}),
    ("PNM", "colour", "RGB", {}),
    ("PNM", "grey", "L", {}),
    ("PNM", "16 bits", "I;16", {}),
)
_PILLOW_NAMES = {"PNM": "PPM", "HEIC": "HEIF"}


@cache
def draw_seeds() -> tuple[Seed, ...]:
    """Draw all seeds; the same ones every time, as far as the encoders are."""
    pillow_heif.register_heif_opener()
    face = draw_face(1, WIDTH, HEIGHT)
    large = draw_face(1, 450, 460)
    jpeg = _save(face, "JPEG", {})
    return (
        *(Seed(f"{kind} {name}", kind, _save(_in_mode(face, mode), kind, dict(options)))
          for kind, name, mode, options in _BY_PILLOW),
        Seed("JPEG with EXIF and a thumbnail", "JPEG", _with_exif(jpeg)),
        Seed("JPEG large enough to be decoded at half its size", "JPEG", _save(large, "JPEG", {"quality": 5})),
        Seed("PNG 16 bits", "PNG", _encode(".png", np.asarray(face).astype(np.uint16) * 257)),
        Seed("PNG interlaced", "PNG", _interlaced(np.asarray(face))),
        Seed("TIFF 16 bits", "TIFF", _encode(".tiff", np.asarray(face).astype(np.uint16) * 257)),
        Seed("TIFF 32 bits, floating point", "TIFF", _encode(".tiff", np.asarray(face).astype(np.float32) / 255)),
        Seed("TIFF big-endian", "TIFF", _big_endian_tiff(np.asarray(face))),
        Seed("BMP run lengths", "BMP", _run_length_bmp(np.asarray(face.convert("L")))),
    )  # fmt: skip


def _in_mode(face: Image.Image, mode: str) -> Image.Image:
    picture = face.convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.linear_gradient("L").resize(face.size))
    return picture


def _save(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    if options.get("save_all"):
        options["append_images"] = [image.rotate(90), image.rotate(180)]
    file = BytesIO()
    image.save(file, _PILLOW_NAMES.get(kind, kind.upper()), **options)
    return file.getvalue()


def _encode(extension: str, image: Any) -> bytes:
    done, content = cv2.imencode(extension, image)
    assert done
    return content.tobytes()


def _with_exif(jpeg: bytes) -> bytes:
    """Add a directory with an orientation and, behind it, a second one with a thumbnail."""
    first = struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + struct.pack("<I", 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(jpeg), 0)
    body = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + jpeg
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def png_chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG file, with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _interlaced(image: Any) -> bytes:
    """Write the seven passes of Adam7, all without a filter."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, right in passes for row in image[top::down, left::right])
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


def _big_endian_tiff(image: Any) -> bytes:
    height, width, channels = image.shape
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 8), (277, channels), (278, height)]
    tags.append((279, image.nbytes))
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"MM\0*" + struct.pack(">I", 8 + image.nbytes)
    return head + image.tobytes() + struct.pack(">H", len(tags)) + entries + bytes(4)


def _run_length_bmp(grey: Any) -> bytes:
    """Write pairs of a count and a shade, the lowest line first."""
    runs = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in grey[::-1]) + b"\0\1"
    palette = b"".join(bytes((shade, shade, shade, 0)) for shade in range(256))
    start = 14 + 40 + len(palette)
    size = struct.pack("<IiiHHIIiiII", 40, grey.shape[1], grey.shape[0], 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + size + palette + runs
