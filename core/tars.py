"""Members of a tar archive."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

from core.errors import ImageError, too_large
from core.members import Archive, Member, not_there
from core.verdicts import Status

#: All that stands before the content of one member: its header, and those with a long name or extended attributes.
#: `tarfile` reads them whole, so that a header could ask for all memory.
MAX_HEADER = 64 * 2**10
#: What `tarfile` raises at headers that make no sense. Some of them nest until the stack ends.
_BROKEN = (tarfile.TarError, ValueError, OverflowError, RecursionError)


class TarArchive(Archive):
    """A tar without compression. Absolute names and ``..`` are just names: nothing is ever unpacked."""

    def members(self) -> Iterator[Member | None]:
        """See ``Archive``. A name that occurs twice is yielded twice."""
        position = 0
        while (block := self._read_at(position, tarfile.BLOCKSIZE)).strip(b"\0"):  # zeros mark the end
            if position and len(block) < tarfile.BLOCKSIZE:
                raise ImageError(Status.TRUNCATED, f"it ends within the header at byte {position}")
            info, following = self._header(position)
            if _is_plain(info):
                if info.offset_data + info.size > self._size:
                    raise ImageError(Status.TRUNCATED, f"it ends within its member {info.name!r:.200}")
                yield Member(info.name, info.size, "", position, info.mtime)
            elif not info.isdir():
                yield None
            position = following

    def read(self, member: str, *, offset: int | None, max_bytes: int) -> bytes:
        """See ``Archive``."""
        with self._lock:
            start = self._find(member) if offset is None else offset
            try:
                info, _ = self._header(start)
            except ImageError as error:
                raise not_there(start) from error
            if info.name != member or not _is_plain(info):
                raise not_there(start)
            if info.size > max_bytes:
                raise too_large(info.size, max_bytes)
            content = self._read_at(info.offset_data, info.size)
        if len(content) < info.size:
            raise ImageError(Status.TRUNCATED, "the archive ends within it")
        return content

    def _header(self, position: int) -> tuple[tarfile.TarInfo, int]:
        """Return the member whose first header is at a position, and where the next one is."""
        # Not one for all members: it would keep them. Nor does it then matter where it starts.
        headers = cast("IO[bytes]", _Headers(self, position))
        try:
            tar = tarfile.TarFile(fileobj=headers, encoding="utf-8", errors="surrogateescape")
            info = tar.next()
        except _BROKEN as error:
            raise _broken(position, str(error)) from error
        if info is None or info.size < 0 or tar.offset <= position:  # else a listing might never end
            raise _broken(position, "bad header")
        return info, tar.offset


class _Headers:
    """The file as `tarfile` sees it, to read the headers of one member."""

    def __init__(self, archive: TarArchive, position: int) -> None:
        self._archive = archive
        self._position = position
        self._left = MAX_HEADER

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"more than {MAX_HEADER} bytes of headers")
        self._left -= size
        content = self._archive._read_at(self._position, size)
        self._position += len(content)
        return content

    def seek(self, position: int) -> None:
        if position < 0:
            raise tarfile.ReadError("bad size")
        self._position = position

    def tell(self) -> int:
        return self._position


def _is_plain(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def _broken(position: int, reason: str) -> ImageError:
    hint = "; one that is compressed has to be unpacked" if position == 0 else ""
    return ImageError(Status.UNREADABLE, f"no member of a tar begins at byte {position}: {reason}{hint}")
