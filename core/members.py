"""What all kinds of archives have in common."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import Lock
from typing import BinaryIO, ClassVar, NamedTuple
from weakref import finalize

from core.errors import ImageError, StorageError
from core.verdicts import Status


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: bytes that are no UTF-8 as surrogates, as `os.fsdecode` gives them.
        size_bytes: as the archive declares it, which need not be true; 0 in an archive of rows.
        mark: tells its content from that of an earlier archive of the same fingerprint, as far as that costs nothing.
        offset: where its header stands; None in an archive of rows.
        modified: when it was, in seconds since 1970; None if nobody knows.
    """

    name: str
    size_bytes: int = 0
    mark: str = ""
    offset: int | None = None
    modified: float | None = None


class Archive(ABC):
    """An archive that is read without unpacking it. It closes itself when nobody has it any more.

    Attributes:
        has_rows: whether its members are rows: numbered, and of a size that is unknown until they are read.
    """

    has_rows: ClassVar[bool] = False

    def __init__(self, file: BinaryIO) -> None:
        """Take over an open file, whatever its position.

        Raises:
            StorageError: reading failed for a reason that may pass.
        """
        self._file = file
        self._lock = Lock()  # of the file, whose position is one for all threads
        self._closing = finalize(self, file.close)
        self._offsets: dict[str, int | None] | None = None
        self._flaw = Status.NOT_FOUND, "the archive has no such member"
        try:
            self._size = file.seek(0, os.SEEK_END)
        except OSError as error:
            raise _failed(error) from error

    @abstractmethod
    def members(self) -> Iterator[Member | None]:
        """Yield the members in their order, and None for each that is no file: a link, a device.

        Lazily, with flat memory, and not while another thread reads.

        Raises:
            ImageError: the archive is broken from here on.
            StorageError: reading failed for a reason that may pass.
        """

    @abstractmethod
    def read(self, member: str, *, offset: int | None, max_bytes: int) -> bytes:
        """Return the bytes of a member; safe to call from many threads, and fast in the order of the archive.

        Args:
            member: its name.
            offset: where its header stands, if that is known. It comes from a message, and so is not believed.
            max_bytes: larger members are refused, whatever size they declare.

        Raises:
            ImageError: the member itself is the matter; trying again would not help.
            StorageError: reading failed for a reason that may pass.
        """

    def close(self) -> None:
        """Close the file, once no thread reads from it."""
        with self._lock:
            self._closing()

    def _read_at(self, position: int, size: int) -> bytes:
        """Return so many bytes, or fewer where the file ends. The lock is held, or nobody else has the archive."""
        if not self._closing.alive:
            raise StorageError("the archive was closed before its member was read")
        if position >= self._size:  # there are positions that no file can have
            return b""
        try:
            self._file.seek(position)
            return self._file.read(size)
        except OSError as error:
            raise _failed(error) from error

    def _find(self, name: str) -> int:
        """Look for a member through the whole archive, once for all names. The lock is held."""
        if self._offsets is None:
            found = {}
            try:
                for member in self.members():
                    if member is not None:
                        found[member.name] = member.offset  # of several, the last one counts, as in unpacking
            except ImageError as error:  # what stands before the broken place can be read
                self._flaw = error.status, error.reason
            self._offsets = found
        offset = self._offsets.get(name)
        if offset is None:
            raise ImageError(*self._flaw)
        return offset


def _failed(error: OSError) -> StorageError:
    return StorageError(f"reading failed: {error.strerror or error}")


def member_fingerprint(archive: str, member: Member) -> str:
    """Return what identifies the content of a member, and tells where it stands.

    Args:
        archive: fingerprint of the archive; empty if nobody knows whether it changes, and so its members.
        member: of the archive.
    """
    parts = (archive, member.mark, "" if member.offset is None else str(member.offset))
    return "@".join(filter(None, parts)) if archive else ""


def offset_in(fingerprint: str) -> int | None:
    """Return where the header of a member stood when it had this fingerprint; None if that does not say."""
    _, has_offset, offset = fingerprint.rpartition("@")
    return int(offset) if has_offset and re.fullmatch("[0-9]{1,18}", offset) else None


def not_there(offset: int) -> ImageError:
    """Return the error of a member that an offset does not lead to."""
    return ImageError(
        Status.NOT_FOUND, f"the archive has no such member at byte {offset}: it changed after it was listed"
    )
