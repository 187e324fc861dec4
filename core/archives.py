"""Archives as sources, without unpacking them: ``.tar`` (WebDataset), ``.zip``, ``.parquet`` with images in rows."""

import os
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO, Protocol

from core.errors import ImageError, SourceError, StorageError
from core.images import ImageRef
from core.jobs import MAX_SIZE, MAX_URI_LENGTH
from core.members import Archive, Member, member_fingerprint
from core.selection import Selection
from core.storage import open_named
from core.tables import TableArchive
from core.tars import TarArchive
from core.uris import (
    ARCHIVE_SUFFIXES,
    FILE_SCHEME,
    is_remote,
    member_uri,
    named_uri,
    split_member,
    uri_to_path,
)
from core.verdicts import Status
from core.zips import ZipArchive

#: Selects archives in a folder or bucket.
ARCHIVES = Selection(include=[f"*{suffix}" for suffix in ARCHIVE_SUFFIXES])

_KINDS: dict[str, type[Archive]] = {".tar": TarArchive, ".zip": ZipArchive, ".parquet": TableArchive}


def open_archive(file: BinaryIO, uri: str) -> Archive:
    """Take over an open archive.

    Args:
        file: can be read and sought in.
        uri: of the archive; its suffix tells the kind.

    Raises:
        ImageError: it is no such archive, or broken.
        StorageError: reading failed for a reason that may pass.
        UsageError: what reads it is not installed.
    """
    kind = _KINDS.get(os.path.splitext(uri)[1].lower())  # noqa: PTH122
    if kind is None:
        file.close()
        raise ImageError(Status.UNSUPPORTED, f"not an archive: the suffixes are {', '.join(_KINDS)}")
    return kind(file)


class ArchiveListing:
    """The images in an archive; iterate over it once, lazily.

    Hidden members are passed over, as in a folder. Rows of a table have no names, and sizes that are unknown until
    they are read: names and sizes select nothing there.

    Attributes:
        is_folder: always.
        ignored: how many members were not wanted, so far, or are no files.
        unlistable: why the archive could not be listed to its end.
    """

    is_folder = True

    def __init__(self, source: str, selection: Selection) -> None:
        """Check that the source is an archive.

        Args:
            source: path or URI of the archive.
            selection: which of its members are wanted, by their names in it.

        Raises:
            SourceError: it cannot be opened, or is broken at its beginning.
            UsageError: what reads it is not installed.
        """
        self.ignored = 0
        self.unlistable: list[str] = []
        self._source, self._selection = source, selection
        try:
            self._uri = _absolute(source)
            file, self._fingerprint = open_named(self._uri)
            self._archive = open_archive(file, self._uri)
            members = self._archive.members()
            self._members = chain(list(islice(members, 1)), members)
        except (ImageError, StorageError) as error:
            raise SourceError(f"source {source} cannot be listed: {error}") from error

    def __iter__(self) -> Iterator[ImageRef]:
        too_long = 0
        try:
            for member in self._members:
                if member is not None and _is_hidden(member.name):
                    continue
                ref = None if member is None else self._wanted(member)
                if ref is None:
                    self.ignored += 1
                elif len(ref.uri) > MAX_URI_LENGTH:
                    too_long += 1
                else:
                    yield ref
        except (ImageError, StorageError) as error:
            self.unlistable.append(f"{self._source}: {error}")
        finally:
            self._archive.close()
        if too_long:
            self.unlistable.append(f"{self._source}: {too_long} members whose names are too long")

    def _wanted(self, member: Member) -> ImageRef | None:
        has_name = member.name and self._selection.takes_name(member.name.removeprefix("./"))
        if not has_name and not self._archive.has_rows:
            return None
        fingerprint = member_fingerprint(self._fingerprint, member)
        ref = ImageRef(member_uri(self._uri, member.name), fingerprint, min(member.size_bytes, MAX_SIZE), member.offset)
        return ref if self._selection.takes(ref, member.modified) else None


class ShardListing:
    """The images in all archives that another listing finds; iterate over it once, lazily.

    Attributes:
        is_folder: always.
    """

    is_folder = True

    def __init__(self, shards: "Shards", selection: Selection) -> None:
        """Take what lists the archives.

        Args:
            shards: a listing of a folder or bucket, with ``ARCHIVES`` as its selection.
            selection: which of the archives' members are wanted, by their names in it.
        """
        self._shards = shards
        self._selection = selection
        self._ignored = 0
        self._unlistable: list[str] = []

    @property
    def ignored(self) -> int:
        """Files that are no archives, and members that were not wanted, so far."""
        return self._shards.ignored + self._ignored

    @property
    def unlistable(self) -> list[str]:
        """What could not be listed, or not to its end, so far, each with the reason."""
        return [*self._shards.unlistable, *self._unlistable]

    def __iter__(self) -> Iterator[ImageRef]:
        for shard in self._shards:
            try:
                listing = ArchiveListing(shard.uri, self._selection)
            except SourceError as error:
                self._unlistable.append(str(error))
                continue
            yield from listing
            self._ignored += listing.ignored
            self._unlistable += listing.unlistable


class Shards(Protocol):
    """What a listing of archives has."""

    @property
    def ignored(self) -> int:
        """How many files are no archives, so far."""
        ...

    @property
    def unlistable(self) -> list[str]:
        """Parts that could not be listed, so far, each with the reason."""
        ...

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield the archives."""
        ...


def _absolute(source: str) -> str:
    """Return the URI of a source.

    Raises:
        ImageError: it names a member.
    """
    if is_remote(source):
        if split_member(source)[1] is not None:
            raise ImageError(Status.UNSUPPORTED, "it names a member of an archive: name the archive")
        return source
    return named_uri(uri_to_path(source) if source.startswith(FILE_SCHEME) else source)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
