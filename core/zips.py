"""Members of a zip archive.

`zipfile` would hold 600 bytes for each member, and read the whole directory for each job. Here the directory is read
in pieces, and a member's offset is that of its entry in the directory, which has all that is needed to read it.
"""

import stat
import struct
import time
import zlib
from collections.abc import Iterator
from struct import Struct, iter_unpack
from typing import BinaryIO, NamedTuple

from core.errors import ImageError, too_large
from core.members import Archive, Member, not_there
from core.verdicts import Status

_END = Struct("<4s4H2LH")  # of the directory: bytes, offset
_END64 = Struct("<4sQ2H2L4Q")
_LOCATOR64 = Struct("<4sLQL")
_ENTRY = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_FIELD = Struct("<2H")
#: A directory is read in pieces of this size, which hold any entry, and mostly those of several jobs. They begin a
#: little before an entry that is asked for: threads do not come in order.
_PIECE = 2**18
_DISORDER = 2**14
#: Its last fields may have 65,535 bytes each.
_LONGEST_ENTRY = _ENTRY.size + 3 * 65_535
_LONGEST_END = _END64.size + _LOCATOR64.size + _END.size + 65_535
#: In a field that is too small for its value, which then stands in the extra field.
_ELSEWHERE = 2**32 - 1
_ZIP64_FIELD = 1
_STORED, _DEFLATED = 0, 8
_IS_ENCRYPTED, _IS_UTF8 = 1, 0x800


class _Entry(NamedTuple):
    """What the directory says of a member."""

    name: str
    flags: int
    method: int
    when: tuple[int, int]  # date and time, as MS-DOS has them
    checksum: int
    packed: int  # bytes
    size: int  # bytes
    mode: int  # as Unix has it
    local: int  # offset of its local header

    @property
    def modified(self) -> float:
        """When it was, in seconds since 1970; in a zip, times are local ones, wherever that was."""
        date, clock = self.when
        parts = (date >> 9) + 1980, date >> 5 & 15, date & 31, clock >> 11, clock >> 5 & 63, (clock & 31) * 2
        return time.mktime((*parts, 0, 0, -1))


class ZipArchive(Archive):
    """A zip. Absolute names and ``..`` are just names: nothing is ever unpacked."""

    def __init__(self, file: BinaryIO) -> None:
        """Find the directory.

        Raises:
            ImageError: there is none.
            StorageError: reading failed for a reason that may pass.
        """
        super().__init__(file)
        self._start, self._end, self._shift = self._find_directory()
        self._piece = self._start, b""  # of the directory, and where it begins

    def members(self) -> Iterator[Member | None]:
        """See ``Archive``. A name that occurs twice is yielded twice; by its name, `zipfile` finds the last one."""
        at = self._start
        while at < self._end:
            entry, length = self._entry_at(at)
            if stat.S_ISLNK(entry.mode):
                yield None
            elif not entry.name.endswith("/"):
                yield Member(entry.name, entry.size, f"{entry.checksum:08x}-{entry.size}", at, entry.modified)
            at += length

    def read(self, member: str, *, offset: int | None, max_bytes: int) -> bytes:
        """See ``Archive``."""
        with self._lock:
            entry = self._entry(member, offset)
            if entry.flags & _IS_ENCRYPTED:
                raise ImageError(Status.UNREADABLE, "it is encrypted")
            if entry.method not in (_STORED, _DEFLATED):  # all others are rare, and not so easily bounded
                raise ImageError(Status.UNSUPPORTED, f"method {entry.method} of compression: only deflate is read")
            if max(entry.size, entry.packed) > max_bytes:
                raise too_large(max(entry.size, entry.packed), max_bytes)
            packed = self._packed(entry)
        content = packed if entry.method == _STORED else _inflate(packed, entry.size)
        if len(content) != entry.size:
            raise ImageError(Status.UNREADABLE, f"not the {entry.size} bytes that the archive declares")
        if zlib.crc32(content) != entry.checksum:
            raise ImageError(Status.UNREADABLE, "its checksum is wrong")
        return content

    def _find_directory(self) -> tuple[int, int, int]:
        """Return where the directory begins and ends, and how many bytes stand before what was the zip's own first."""
        before = max(0, self._size - _LONGEST_END)
        tail = self._read_at(before, _LONGEST_END)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise ImageError(Status.UNREADABLE, "no zip ends here: it is none, or was cut off")
        *_, length, offset, _ = _END.unpack_from(tail, at)
        wide = at - _LOCATOR64.size - _END64.size
        if wide >= 0 and tail.startswith(b"PK\6\6", wide) and tail.startswith(b"PK\6\7", wide + _END64.size):
            at = wide
            *_, length, offset = _END64.unpack_from(tail, at)
        start = before + at - length
        if start < offset:
            raise ImageError(Status.UNREADABLE, "the directory of the zip is not where its end says")
        return start, before + at, start - offset

    def _entry(self, name: str, offset: int | None) -> _Entry:
        """Return the entry of a member. The lock is held."""
        at = self._find(name) if offset is None else offset
        if not self._start <= at < self._end:
            raise not_there(at)
        try:
            entry, _ = self._entry_at(at)
        except ImageError as error:
            raise not_there(at) from error
        if entry.name != name:
            raise not_there(at)
        return entry

    def _entry_at(self, at: int) -> tuple[_Entry, int]:
        """Return the entry at an offset, and its length. The lock is held, or nobody else has the archive."""
        begin, piece = self._piece
        if at < begin or begin + len(piece) < min(at + _LONGEST_ENTRY, self._end):
            begin = max(self._start, at - _DISORDER)
            piece = self._read_at(begin, min(_PIECE, self._end - begin))
            self._piece = begin, piece
        return _parse_entry(piece, at - begin)

    def _packed(self, entry: _Entry) -> bytes:
        """Return the bytes of a member as they are stored. The lock is held."""
        local = entry.local + self._shift
        header = self._read_at(local, _LOCAL.size) if local < self._start else b""
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise ImageError(Status.UNREADABLE, "it is not where the directory of the zip says")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        packed = self._read_at(local + _LOCAL.size + name_length + extra_length, entry.packed)
        if len(packed) < entry.packed:
            raise ImageError(Status.TRUNCATED, "the archive ends within it")
        return packed


def _parse_entry(piece: bytes, used: int) -> tuple[_Entry, int]:
    """Return the entry of a directory that begins there, and its length."""
    try:
        (signature, _, _, flags, method, clock, date, checksum, packed, size, name_length, extra_length,
         comment_length, _, _, attributes, local) = _ENTRY.unpack_from(piece, used)  # fmt: skip
    except struct.error:
        signature = b""
    if signature != b"PK\1\2":
        raise ImageError(Status.UNREADABLE, "the directory of the zip is broken")
    names = used + _ENTRY.size
    extras = names + name_length
    raw = piece[names:extras]
    # Bytes that have no meaning in UTF-8 are kept; in the older code page each byte has one.
    name = raw.decode("utf-8", "surrogateescape") if flags & _IS_UTF8 else raw.decode("cp437")
    extra = piece[extras : extras + extra_length]
    size, packed, local = _widened((size, packed, local), extra)
    entry = _Entry(name, flags, method, (date, clock), checksum, packed, size, attributes >> 16, local)
    return entry, extras + extra_length + comment_length - used


def _widened(values: tuple[int, int, int], extra: bytes) -> tuple[int, ...]:
    """Return the values, each that is ``_ELSEWHERE`` from the extra field, where they stand in this order."""
    while _ELSEWHERE in values and len(extra) >= _FIELD.size:
        kind, length = _FIELD.unpack_from(extra)
        field, extra = extra[_FIELD.size : _FIELD.size + length], extra[_FIELD.size + length :]
        if kind == _ZIP64_FIELD:
            numbers = (number for (number,) in iter_unpack("<Q", field[: len(field) // 8 * 8]))
            return tuple(next(numbers, value) if value == _ELSEWHERE else value for value in values)
    return values


def _inflate(packed: bytes, size: int) -> bytes:
    """Unpack what is declared to have that many bytes, and stop just beyond them."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)  # 0 would be no limit
    except zlib.error as error:
        raise ImageError(Status.UNREADABLE, f"it cannot be unpacked: {error}") from error
