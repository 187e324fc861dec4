"""What decoding a JPEG 2000 file would cost, from its headers: some hundred bytes can ask for any memory and time.

An image is cut into tiles, a tile's components into resolutions, these into precincts, and each layer of a precinct is
a packet (ISO/IEC 15444-1, Annex A and B). The decoder makes all of them before it looks for data.
"""

import re
import struct
from collections.abc import Collection, Iterable, Iterator
from typing import TypeAlias, TypeVar

#: Bytes that the decoder takes for one component of a tile, and for a precinct; measured with OpenCV 5.0.
_COMPONENT_BYTES, _PRECINCT_BYTES = 4096, 544
MAX_BYTES = 256 * 2**20
#: It goes through about twenty million of them in a second. A scan of 100 megapixels for an archive has a million.
MAX_PACKETS = 10_000_000
_DEFAULT_PRECINCT = 0xFF  # 2^15 by 2^15: one for all that there is
#: Of each kind, those that differ. A real file has one size and a few styles; each size is tried with each style.
MAX_HEADERS = 50
_SIZE = re.compile(rb"\xff\x4f\xff\x51(?=.{4}(.{34}))", re.S)
#: The length and what follows it. A component has none of the three fields in the middle: the layers are the image's.
_STYLE = re.compile(rb"\xff\x52(?=(..)([\0-\7]).(..)[\0\1]([\0-\x20])[\0-\x08]{2}.[\0\1](.{0,33}))", re.S)
#: By the bytes of a component's number: the same bytes may look like either.
_COMPONENT_STYLES = {
    width: re.compile(rb"\xff\x53(?=(..).{%d}([\0\1])([\0-\x20])[\0-\x08]{2}.[\0\1](.{0,33}))" % width, re.S)
    for width in (1, 2)
}

#: The number of layers, that of levels, and the sizes of precincts from the smallest resolution to the whole one.
_Style: TypeAlias = tuple[int, int, bytes]
_T = TypeVar("_T")


def has_too_many_parts(jp2: bytes) -> bool:
    """Tell whether a JPEG 2000 file states more parts than any real image has.

    Whatever looks like a header counts, wherever it stands, so that none can be hidden; the worst of each kind does.
    The time grows with the length of the file alone, for its headers can be as many as fit into it.

    Args:
        jp2: the whole file.
    """
    sizes = _distinct(found[1] for found in _SIZE.finditer(jp2))
    styles = _distinct(_styles(jp2))
    if max(len(sizes), len(styles)) > MAX_HEADERS:
        return True
    return any(_is_too_much(size, styles) for size in sizes)


def _distinct(headers: Iterable[_T]) -> set[_T]:
    """Return those that differ, and of too many the first ones."""
    found = set[_T]()
    for header in headers:
        found.add(header)
        if len(found) > MAX_HEADERS:
            break
    return found


def _is_too_much(size: bytes, styles: Collection[_Style]) -> bool:
    stated: tuple[int, ...] = struct.unpack(">8IH", size)
    right, bottom, left, top, width, height, tile_left, tile_top, components = stated
    width, height = min(width, max(1, right - left)), min(height, max(1, bottom - top))
    if not width or not height:
        return False
    parts = components * _ceil(max(0, right - tile_left), width) * _ceil(max(0, bottom - tile_top), height)
    layers = max((style[0] for style in styles), default=1)
    most = max((_count_precincts(width, height, *style[1:]) for style in styles), default=1)
    return parts * (_COMPONENT_BYTES + most * _PRECINCT_BYTES) > MAX_BYTES or parts * most * layers > MAX_PACKETS


def _styles(jp2: bytes) -> Iterator[_Style]:
    for found in _STYLE.finditer(jp2):
        length, flags, layers, levels, sizes = found.groups()
        yield from _style(length, 12, flags, int.from_bytes(layers, "big"), levels, sizes)
    for width, pattern in _COMPONENT_STYLES.items():
        for found in pattern.finditer(jp2):
            length, flags, levels, sizes = found.groups()
            yield from _style(length, 8 + width, flags, 1, levels, sizes)


def _style(length: bytes, least: int, flags: bytes, layers: int, levels: bytes, sizes: bytes) -> Iterator[_Style]:
    """Yield what a header says, if it is one: it has just its length, and other bytes may happen to look like it."""
    stated = levels[0] + 1 if flags[0] & 1 else 0  # sizes of precincts
    if int.from_bytes(length, "big") == least + stated:
        yield layers, levels[0], sizes[:stated]


def _count_precincts(width: int, height: int, levels: int, sizes: bytes) -> int:
    """Return how many a component of a tile has in all its resolutions, if the first one begins where the tile does."""
    count = 0
    for resolution in range(levels + 1):
        size = sizes[resolution] if resolution < len(sizes) else _DEFAULT_PRECINCT
        shrunk = 2 ** (levels - resolution)
        count += _ceil(_ceil(width, shrunk), 2 ** (size & 15)) * _ceil(_ceil(height, shrunk), 2 ** (size >> 4))
    return count


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)
