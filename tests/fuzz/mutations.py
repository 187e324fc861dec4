"""How sound images are broken: blindly, and where their formats say that a length, a size or a table stands."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from random import Random

from tests.fuzz.seeds import Seed, png_chunk

#: Where programs count wrong.
EXTREMES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0,
            0xFFFF_FFFE, 0xFFFF_FFFF)  # fmt: skip
#: A file never gets longer than this, in bytes.
LONGEST = 200_000
_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
#: Boxes that hold boxes, and how many bytes of their own stand before these.
_CONTAINERS = {
    b"meta": 4, b"iprp": 0, b"ipco": 0, b"iref": 4, b"iinf": 6, b"jp2h": 0,
    b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0,
}  # fmt: skip

#: Bytes that a format is recognised by.
_MAGIC = {
    "JPEG": 3, "PNG": 8, "WebP": 12, "GIF": 6, "BMP": 2, "TIFF": 4, "AVIF": 12, "HEIC": 12, "JPEG2000": 12, "PNM": 3,
}  # fmt: skip

Mutation = Callable[[bytes, Random], bytes]


def mutate(seed: Seed, pool: Sequence[Seed], chance: Random) -> bytes:
    """Return a broken copy of an image.

    Args:
        seed: the image.
        pool: what parts of others are taken from.
        chance: decides everything: another of the same state gives the same copy.
    """
    content = seed.content
    for _ in range(chance.choice((1, 1, 1, 1, 2, 4))):
        kind = chance.random()
        if kind < 0.5:
            content = _by_pieces(content, seed, pool, chance)
        elif kind < 0.9:
            content = chance.choice(_BLIND)(content, chance)
        else:
            content = chance.choice(_MIXTURES)(content, chance.choice(pool).content, chance)
        if not content:
            return b""
    if chance.random() < 0.8:  # else too many would be refused at their first bytes
        content = seed.content[: _MAGIC[seed.format]] + content[_MAGIC[seed.format] :]
    return content[:LONGEST]


def _flip_bits(content: bytes, chance: Random) -> bytes:
    broken = bytearray(content)
    end = min(len(broken), chance.choice((32, 200, LONGEST)))
    for _ in range(chance.choice((1, 1, 3, 10, 100))):
        broken[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _set_bytes(content: bytes, chance: Random) -> bytes:
    broken = bytearray(content)
    end = min(len(broken), chance.choice((32, 200, LONGEST)))
    for _ in range(chance.choice((1, 3, 10))):
        broken[chance.randrange(end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
    return bytes(broken)


def _set_number(content: bytes, chance: Random) -> bytes:
    size = chance.choice((2, 4, 8))
    number = chance.choice((*EXTREMES, len(content), len(content) - 1, chance.getrandbits(32)))
    written = (number % 256**size).to_bytes(size, chance.choice(("big", "little")))
    position = chance.randrange(min(len(content), chance.choice((64, 400, LONGEST))))
    return content[:position] + written + content[position + size :]


def _cut_off(content: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _span(content: bytes, chance: Random) -> slice:
    start = chance.randrange(len(content))
    return slice(start, start + chance.choice((1, 2, 4, 16, 64, 256, 1024)))


def _delete(content: bytes, chance: Random) -> bytes:
    span = _span(content, chance)
    return content[: span.start] + content[span.stop :]


def _repeat(content: bytes, chance: Random) -> bytes:
    span = _span(content, chance)
    return content[: span.stop] + content[span] * chance.choice((1, 2, 50)) + content[span.stop :]


def _move(content: bytes, chance: Random) -> bytes:
    span = _span(content, chance)
    rest = content[: span.start] + content[span.stop :]
    to = chance.randrange(len(rest) + 1)
    return rest[:to] + content[span] + rest[to:]


def _insert_noise(content: bytes, chance: Random) -> bytes:
    position = chance.randrange(len(content) + 1)
    return content[:position] + chance.randbytes(chance.choice((1, 4, 100, 3000))) + content[position:]


def _fill(content: bytes, chance: Random) -> bytes:
    """Overwrite a stretch with one value, or with noise."""
    span = _span(content, chance)
    length = len(content[span])
    filled = bytes([chance.choice((0, 0xFF, 0x41))]) * length if chance.random() < 0.5 else chance.randbytes(length)
    return content[: span.start] + filled + content[span.stop :]


def _keep_head(content: bytes, chance: Random) -> bytes:
    head = chance.choice((4, 12, 32, 64, 128, 512))
    return content[:head] + chance.randbytes(max(0, len(content) - head))


_BLIND: tuple[Mutation, ...] = (
    _flip_bits, _set_bytes, _set_number, _cut_off, _delete, _repeat, _move, _insert_noise, _fill, _keep_head,
)  # fmt: skip


def _splice(content: bytes, other: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)] + other[chance.randrange(len(other)) :]


def _append(content: bytes, other: bytes, chance: Random) -> bytes:
    return content + other


def _overwrite(content: bytes, other: bytes, chance: Random) -> bytes:
    part = other[_span(other, chance)]
    position = chance.randrange(len(content))
    return content[:position] + part + content[position + len(part) :]


_MIXTURES = (_splice, _append, _overwrite)


def _by_pieces(content: bytes, seed: Seed, pool: Sequence[Seed], chance: Random) -> bytes:
    """Break one of the parts that the file consists of, or their order, and leave the others sound."""
    pieces = split(seed.format, content)
    index = chance.randrange(len(pieces))
    piece = pieces[index]
    match chance.randrange(8):
        case 0:
            del pieces[index]
        case 1:
            pieces[index:index] = [piece] * chance.choice((1, 2, 40))
        case 2:
            other = chance.randrange(len(pieces))
            pieces[index], pieces[other] = pieces[other], piece
        case 3:
            donor = chance.choice([other for other in pool if other.format == seed.format])
            pieces.insert(index, chance.choice(split(donor.format, donor.content)))
        case 4:
            pieces[index] = _set_number(piece[:32], chance) + piece[32:]
        case 5 if seed.format == "PNG" and piece[4:8] == b"IDAT":
            pieces[index] = _repack(piece, chance)
        case _:
            pieces[index] = _mend(seed.format, chance.choice(_BLIND)(piece, chance))
    whole = b"".join(pieces)
    if seed.format == "WebP" and chance.random() < 0.7:
        whole = whole[:4] + struct.pack("<I", max(0, len(whole) - 8)) + whole[8:]
    return whole


def _mend(kind: str, piece: bytes) -> bytes:
    """Give a broken chunk its right length and checksum: else no decoder would look into it."""
    if kind == "PNG" and len(piece) >= 12 and piece != _PNG_HEAD:
        return png_chunk(piece[4:8], piece[8:-4])
    if kind == "JPEG" and len(piece) >= 4 and piece[0] == 0xFF and len(piece) < 2**16:
        return piece[:2] + struct.pack(">H", len(piece) - 2) + piece[4:]
    return piece


def _repack(chunk: bytes, chance: Random) -> bytes:
    """Break what is compressed within a PNG's chunk: filters and pixels."""
    try:
        pixels = zlib.decompress(chunk[8:-4])
    except zlib.error:
        return chunk
    return png_chunk(b"IDAT", zlib.compress(chance.choice(_BLIND)(pixels or b"\0", chance)))


def split(kind: str, content: bytes) -> list[bytes]:
    """Return the parts that a file consists of, at least one; joined they are the file, broken or not.

    Args:
        kind: format that it is taken for.
        content: of the file, not empty.
    """
    ends = sorted({end for end in _SPLITTERS[kind](content) if 0 < end < len(content)})
    return [content[start:end] for start, end in zip((0, *ends), (*ends, len(content)), strict=True)]


def _jpeg_ends(content: bytes) -> Iterator[int]:
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        yield position
        marker = content[position + 1]
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == 0xDA:
            yield position
            while 0 <= (position := content.find(b"\xff", position)) < len(content) - 1:
                if content[position + 1] not in (0, *range(0xD0, 0xD8)):
                    break
                position += 2
            if position < 0:
                return
    yield position


def _png_ends(content: bytes) -> Iterator[int]:
    position = 8
    while position + 8 <= len(content):
        yield position
        position += 12 + int.from_bytes(content[position : position + 4], "big")


def _webp_ends(content: bytes) -> Iterator[int]:
    position = 12
    while position + 8 <= len(content):
        yield position
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        position += 8 + length + length % 2


def _box_ends(content: bytes) -> Iterator[int]:
    position = 0
    while position + 8 <= len(content):
        yield position
        name = content[position + 4 : position + 8]
        if name in _CONTAINERS:
            position += 8 + _CONTAINERS[name]
        elif name == b"jp2c":
            yield from _codestream_ends(content, position + 8)
            return
        else:
            position += max(8, int.from_bytes(content[position : position + 4], "big"))


def _codestream_ends(content: bytes, position: int) -> Iterator[int]:
    yield position
    position += 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        yield position
        is_data = content[position + 1] == 0x93  # without a length
        position += 2 if is_data else 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    yield position


def _tiff_ends(content: bytes) -> Iterator[int]:
    order = "little" if content[:1] == b"I" else "big"
    start = int.from_bytes(content[4:8], order)
    number = int.from_bytes(content[start : start + 2], order)
    yield from (4, 8, start)
    yield from (start + 2 + 12 * index for index in range(min(number, 100) + 1))


def _gif_ends(content: bytes) -> Iterator[int]:
    def palette(flags: bytes) -> int:
        return 3 << (flags[0] % 8 + 1) if flags and flags[0] & 0x80 else 0

    yield from (6, 13)
    position = 13 + palette(content[10:11])
    while position < len(content):
        yield position
        head = {0x21: 2, 0x2C: 11}.get(content[position], 1)
        position += head + (palette(content[position + 9 : position + 10]) if head == 11 else 0)
        while position < len(content) and content[position]:
            position += 1 + content[position]
        position += 1


def _bmp_ends(content: bytes) -> Iterator[int]:
    yield from (2, 6, 10)
    yield from range(14, 58, 4)
    yield int.from_bytes(content[10:14], "little")


def _pnm_ends(content: bytes) -> Iterator[int]:
    yield from (index for index, char in enumerate(content[:24]) if char in b" \n")


_SPLITTERS: dict[str, Callable[[bytes], Iterator[int]]] = {
    "JPEG": _jpeg_ends, "PNG": _png_ends, "WebP": _webp_ends, "GIF": _gif_ends, "BMP": _bmp_ends, "TIFF": _tiff_ends,
    "AVIF": _box_ends, "HEIC": _box_ends, "JPEG2000": _box_ends, "PNM": _pnm_ends,
}  # fmt: skip
