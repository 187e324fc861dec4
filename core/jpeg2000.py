"""What decoding a JPEG 2000 file would cost, from its headers: some hundred bytes can ask for any memory and time.

An image is cut into tiles, a tile's components into resolutions, these into precincts, and each layer of a precinct is
a packet (ISO/IEC 15444-1, Annex A and B). The decoder makes all of them before it looks for data.
"""

import re
import struct
from collections.abc import Iterator

#: Bytes that the decoder takes for one component of a tile, and for a precinct; measured with OpenCV 5.0.
_COMPONENT_BYTES, _PRECINCT_BYTES = 4096, 544
MAX_BYTES = 256 * 2**20
#: It goes through about twenty million of them in a second. A scan of 100 megapixels for an archive has a million.
MAX_PACKETS = 10_000_000
_DEFAULT_PRECINCT = 0xFF  # 2^15 by 2^15: one for all that there is
_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{34})", re.S)
#: The length and what follows it. A component has none of the three fields in the middle: the layers are the image's.
_STYLE = re.compile(rb"\xff\x52(?=(..)([\0-\7]).(..)[\0\1]([\0-\x20])[\0-\x08]{2}.[\0\1](.{0,33}))", re.S)
_COMPONENT_STYLE = re.compile(rb"\xff\x53(?=(..).{1,2}?([\0\1])([\0-\x20])[\0-\x08]{2}.[\0\1](.{0,33}))", re.S)


def has_too_many_parts(jp2: bytes) -> bool:
    """Tell whether a JPEG 2000 file states more parts than any real image has.

    Whatever looks like a header counts, wherever it stands, so that none can be hidden; the worst of each kind does.

    Args:
        jp2: the whole file.
    """
    layers = max((int.from_bytes(found[3], "big") for found in _STYLE.finditer(jp2) if _is_style(found)), default=1)
    for found in _SIZE.finditer(jp2):
        right, bottom, left, top, width, height, tile_left, tile_top, components = struct.unpack(">8IH", found[1])
        width, height = min(width, max(1, right - left)), min(height, max(1, bottom - top))
        if width and height:
            tiles = _ceil(max(0, right - tile_left), width) * _ceil(max(0, bottom - tile_top), height)
            most = max((_count_precincts(width, height, *style) for style in _styles(jp2)), default=1)
            parts = tiles * components
            if parts * (_COMPONENT_BYTES + most * _PRECINCT_BYTES) > MAX_BYTES or parts * most * layers > MAX_PACKETS:
                return True
    return False


def _is_style(found: re.Match[bytes]) -> bool:
    """Tell a header from bytes that happen to look like one: it has just its length."""
    has_precincts, levels = found[2][0] & 1, found[4][0]
    return int.from_bytes(found[1], "big") == 12 + has_precincts * (levels + 1)


def _styles(jp2: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number of levels, and the sizes of precincts from the smallest resolution to the whole one."""
    for found in _STYLE.finditer(jp2):
        if _is_style(found):
            yield found[4][0], found[5] if found[2][0] & 1 else b""
    for found in _COMPONENT_STYLE.finditer(jp2):
        has_precincts, levels = found[2][0] & 1, found[3][0]
        if int.from_bytes(found[1], "big") - has_precincts * (levels + 1) in (9, 10):
            yield levels, found[4] if has_precincts else b""


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
