"""Lists of images as sources: what their lines name."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import chain

from core.cli import notice
from core.errors import ImageError, SourceError, StorageError
from core.files import describe
from core.images import UNCHANGING, ImageRef, has_image_suffix
from core.jobs import MAX_URI_LENGTH
from core.selection import Selection
from core.storage import open_named
from core.uris import (
    BUCKET_SCHEMES,
    FILE_SCHEME,
    WEB_SCHEMES,
    has_archive_suffix,
    is_bucket,
    is_named_inside,
    is_remote,
    member_uri,
    named_uri,
    split_member,
    uri_to_path,
)
from producer.rows import Flaws, Row, read_rows

STANDARD_INPUT = "-"

_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_KIND = re.compile(r"\.[^./]+(?:\.gz)?$")


class ManifestListing:
    """The images that a list names; iterate over it once, lazily, in the order of its lines.

    A line holds a URI or a path. A relative path begins at the list's own folder, or at the current one if the list
    comes by standard input. Local files are looked at; one that does not exist is listed, and the worker says so. What
    is remote is not looked at: unless the list has a fingerprint for it, it is taken never to change.

    Attributes:
        is_folder: a list can have many images.
        ignored: how many of the images were not wanted, so far.
    """

    def __init__(self, source: str, selection: Selection, column: str | None = None) -> None:
        """Open the list and read its first line.

        Args:
            source: path or URI of a list, of a kind by its suffix; or ``-``, which is standard input.
            selection: which of the images are wanted. A size or time that is not known excludes none of them, and
                whatever its suffix, what a list names is taken for an image.
            column: that names the images, where there are columns; None means the likeliest.

        Raises:
            SourceError: the list cannot be read, or has no such column.
            UsageError: pyarrow is not installed, and the list is of Parquet.
        """
        self.is_folder = True
        self.ignored = 0
        self._source = source
        self._selection = selection
        self._column = column
        self._flaws = Flaws("standard input" if source == STANDARD_INPUT else source)
        self._uri = named_uri(source)
        beside = source if is_remote(source) else os.path.abspath(source)  # noqa: PTH100 - of `-`, the current folder
        self._folder = beside.rpartition("/")[0]
        rows = self._read()
        try:
            first = next(rows, None)
        except (SourceError, ImageError, StorageError) as error:
            raise SourceError(f"source {source} cannot be listed: {error}") from error
        self._rows = rows if first is None else chain([first], rows)

    @property
    def unlistable(self) -> list[str]:
        """The first lines that name no image, so far, each with the reason, and how many more there are."""
        return self._flaws.reasons

    @property
    def unlistable_count(self) -> int:
        """How many lines name no image, so far."""
        return self._flaws.count

    def __iter__(self) -> Iterator[ImageRef]:
        number = 0
        try:
            for row in self._rows:
                number = row.number
                try:
                    ref = self._wanted(row)
                except UnicodeEncodeError:
                    self._flaws.add(number, "it holds what is no UTF-8: percent-encode that")
                except (ValueError, ImageError) as error:
                    self._flaws.add(number, str(error))
                else:
                    if ref is None:
                        self.ignored += 1
                    else:
                        yield ref
        except (ImageError, StorageError) as error:
            self._flaws.add(f"{number + 1} and all that follow", str(error))

    def _read(self) -> Iterator[Row]:
        if self._source != STANDARD_INPUT:
            file, _ = open_named(self._uri)
            with closing(file):
                found = _KIND.search(self._source.lower())
                yield from read_rows(file, found[0] if found else "", self._column, self._flaws)
            return
        if sys.stdin is None:
            raise SourceError("it is closed")
        if sys.stdin.isatty():
            notice("note: reading names of images from the terminal, one in each line; Ctrl+D ends them")
        yield from read_rows(sys.stdin.buffer, STANDARD_INPUT, self._column, self._flaws)

    def _wanted(self, row: Row) -> ImageRef | None:
        """Return the image that a row names; None if it is not wanted.

        Raises:
            ValueError: it names none.
            ImageError: likewise.
        """
        wanted = self._selection
        name = row.name.removeprefix("./")
        if (wanted.include or wanted.exclude) and not wanted.takes_name(name, is_explicit=True):
            return None
        ref, modified = self._look(name, row)
        return ref if wanted.takes(ref, modified) else None

    def _look(self, name: str, row: Row) -> tuple[ImageRef, float | None]:
        if not name or "\0" in name:
            raise ValueError("it holds a NUL" if name else "it is empty")
        has_scheme = _SCHEME.match(name) is not None
        uri = name if has_scheme or name.startswith("/") else f"{self._folder}/{name}"
        archive, member = split_member(uri)
        if member is None and has_archive_suffix(uri):
            raise ValueError("it names an archive: give that as a source, or name a member as ARCHIVE#MEMBER")
        if is_remote(uri):
            return _remote(uri if member is None else member_uri(archive, member), row), None
        if has_scheme and not name.startswith(FILE_SCHEME):
            raise ValueError("the schemes are s3, gs, az, https, http and file")
        return _local(os.path.normpath(uri_to_path(archive)), member)


def _local(path: str, member: str | None) -> tuple[ImageRef, float | None]:
    path.encode(errors="surrogateescape")  # raises for what no file can be called
    ref, modified = describe(path)
    if member is not None:
        ref, modified = ImageRef(member_uri(ref.uri, member), ref.fingerprint, 0), None
    elif not has_image_suffix(path) and os.path.isdir(path):  # noqa: PTH112
        raise ValueError("it names a folder: give that as a source")
    return _checked(ref), modified


def _remote(uri: str, row: Row) -> ImageRef:
    if not is_named_inside(uri, (*BUCKET_SCHEMES, *WEB_SCHEMES)):
        raise ValueError("it has . or .. for a folder")
    if is_bucket(uri) and not uri.partition("://")[2].partition("/")[2].rpartition("/")[2]:
        raise ValueError("it names a folder: give that as a source")
    return _checked(ImageRef(uri, row.fingerprint or UNCHANGING, row.size_bytes))


def _checked(ref: ImageRef) -> ImageRef:
    """Return an image that fits into a message and a database.

    Raises:
        ValueError: it does not.
    """
    if max(len(ref.uri), len(ref.fingerprint)) > MAX_URI_LENGTH:
        raise ValueError(f"more than {MAX_URI_LENGTH:,} characters")
    if "\0" in ref.fingerprint:
        raise ValueError("its fingerprint holds a NUL")
    ref.uri.encode()
    ref.fingerprint.encode()
    return ref
