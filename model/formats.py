"""Recognise image files by their bytes, and tell a file that was cut off from one that is damaged.

Only files recognised here are decoded. Every one of these formats states its size in a header that can be read
without decoding, so the limit on pixels holds for all of them. (Decoders refuse what is larger inside. That of AVIF
alone goes on, up to 16,384 x 16,384 pixels, and shrinks the image to what was stated.)
"""

import re
from collections.abc import Callable
from math import prod
from typing import Literal

#: Longest part of a file that a signature looks at.
_HEAD = 64
_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x28\x34\x38\x6c\x7c]\0\0\0",
    "TIFF": rb"II\*\0|MM\0\*",
    "AVIF": rb"....ftyp(?:....){0,13}avi[fs]",
    "HEIC": rb"....ftyp(?:....){0,13}(?:hei[cmsx]|hev[cmsx]|m[is]f1)",  # behind AVIF, which names the last as well
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n",
    "PNM": rb"P[56]\s",
}
_SIGNATURE = re.compile(b"|".join(b"(?P<%s>%s)" % (name.encode(), rule) for name, rule in _SIGNATURES.items()), re.S)
KNOWN = ", ".join(_SIGNATURES)
#: Scans of a JPEG file; cameras and programs write up to a dozen. Each takes a second where there are pixels enough,
#: and only a few bytes, so that a small file could keep a thread for hours.
MAX_SCANS = 100
_START_OF_SCAN = b"\xff\xda"
#: Tiles of a TIFF that is smaller than one of them are as large at most, in pixels.
_LARGEST_SPARE_TILE = 2**24
_TILE_SIDES = (322, 323)  # tags: width, length
_NUMBER_BYTES = {1: 1, 3: 2}  # of a tag's value, by its kind; 4 of any other
_JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # neither within a scan nor without a length


def recognise(data: bytes) -> str | None:
    """Return the name of a file's format, or None if it is not one that can be decoded.

    Args:
        data: the whole file, or at least its first 64 bytes.
    """
    match = _SIGNATURE.match(data[:_HEAD])
    return match.lastgroup if match else None


def has_too_many_scans(jpeg: bytes) -> bool:
    """Tell whether decoding a JPEG file would take more than ``MAX_SCANS`` rounds.

    Args:
        jpeg: the whole file.
    """
    if jpeg.count(_START_OF_SCAN) <= MAX_SCANS:
        return False
    # Thumbnails, profiles, and what phones append can hold the same bytes: count those of the image itself.
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(jpeg, position)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == _START_OF_SCAN
        position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return scans > MAX_SCANS


def has_too_large_tiles(tiff: bytes, pixels: int) -> bool:
    """Tell whether a TIFF states tiles that are larger than the image is and than any program makes them.

    cv2 takes memory for one, up to 1 GiB, however small the image.

    Args:
        tiff: the whole file.
        pixels: width times height of the image.
    """
    order: Literal["little", "big"] = "little" if tiff[:1] == b"I" else "big"
    start = int.from_bytes(tiff[4:8], order)
    end = start + 2 + 12 * int.from_bytes(tiff[start : start + 2], order)
    sides = dict.fromkeys(_TILE_SIDES, 0)
    for position in range(start + 2, min(end, len(tiff)), 12):
        tag, kind = (int.from_bytes(tiff[at : at + 2], order) for at in (position, position + 2))
        if tag in sides:
            value = tiff[position + 8 : position + 8 + _NUMBER_BYTES.get(kind, 4)]
            sides[tag] = max(sides[tag], int.from_bytes(value, order))
    return prod(sides.values()) > max(pixels, _LARGEST_SPARE_TILE)


def ends_early(kind: str, data: bytes, pixels: int) -> bool:
    """Tell whether a file that could not be decoded lacks its end.

    What a TIFF lacks behind its directory is not noticed; most have the directory last.

    Args:
        kind: as returned by ``recognise``.
        data: the whole file.
        pixels: width times height as its header states them; 0 if they could not be read.
    """
    return _END_RULES[kind](data, pixels)


def still_png(data: bytes) -> bytes | None:
    """Return a PNG without the chunk that declares it animated, or None if a chunk lacks its end.

    cv2 would take memory for the length that a chunk states, 4 GB if need be; and reading an animation where a frame's
    chunks are missing, it reads outside its memory and dies. Every PNG holds one default image for whoever does not
    play animations, and the first frame is mostly that.

    Args:
        data: the whole file.
    """
    position = kept_from = 8
    kept = [data[:8]]
    while True:
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        name = data[position + 4 : position + 8]
        if end > len(data):
            return None
        if name == b"IEND":
            return b"".join([*kept, data[kept_from:]]) if len(kept) > 1 else data
        if name == b"acTL":
            kept.append(data[kept_from:position])
            kept_from = end
        position = end


def _jpeg_ends_early(data: bytes) -> bool:
    """Look for the end marker after the start of the scan: a thumbnail before it has an end marker of its own."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) < 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position + 4 > len(data)


def _boxes_end_early(data: bytes) -> bool:
    """Add up the boxes, length and name each, that AVIF, HEIC and JPEG 2000 files consist of."""
    position = 0
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if length == 0:  # the last box, as long as there are bytes; JPEG 2000 closes it with a marker
            return not data.endswith(b"\xff\xd9")
        if length == 1:
            length = int.from_bytes(data[position + 8 : position + 16], "big")
        position += max(length, 8)
    return position != len(data)


_END_RULES: dict[str, Callable[[bytes, int], bool]] = {
    "JPEG": lambda data, _: _jpeg_ends_early(data),
    "PNG": lambda data, _: not 0 <= data.rfind(b"IEND") <= len(data) - 8,  # the name, then 4 bytes of checksum
    "WebP": lambda data, _: int.from_bytes(data[4:8], "little") + 8 > len(data),
    "GIF": lambda data, _: not data.endswith(b"\0;"),  # the end of the last block, then the trailer
    "BMP": lambda data, _: int.from_bytes(data[2:6], "little") > len(data),
    "TIFF": lambda data, _: int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") + 2 > len(data),
    "AVIF": lambda data, _: _boxes_end_early(data),
    "HEIC": lambda data, _: _boxes_end_early(data),
    "JPEG2000": lambda data, _: _boxes_end_early(data),
    "PNM": lambda data, pixels: (3 if data[1:2] == b"6" else 1) * pixels > len(data),
}
