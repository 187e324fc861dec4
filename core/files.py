"""Folders and files of this machine: list and read."""

import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from core.errors import ImageError, SourceError, StorageError, too_large
from core.images import ImageRef
from core.selection import Selection
from core.uris import ANYWHERE, Roots, is_below, path_to_uri, uri_to_path
from core.verdicts import Status

#: Not worth another try: the file itself is the matter. Every other errno may pass (a network file system).
_FAILURES = {
    errno.ENOENT: (Status.NOT_FOUND, "the file is gone"),
    errno.ENOTDIR: (Status.NOT_FOUND, "the file is gone"),
    errno.ELOOP: (Status.NOT_FOUND, "the name is a symbolic link in a loop"),
    errno.ENAMETOOLONG: (Status.NOT_FOUND, "the name is too long"),
    errno.EACCES: (Status.UNREADABLE, "no permission to read the file"),
    errno.EPERM: (Status.UNREADABLE, "no permission to read the file"),
    errno.EISDIR: (Status.UNSUPPORTED, "not a regular file"),
    errno.ENXIO: (Status.UNSUPPORTED, "not a regular file"),
}


class FolderListing:
    """The images below a folder, or one file; iterate over it once, lazily and in no particular order.

    Hidden entries (``.git``, ``.cache``) are passed over. Links to folders are followed, each folder once. Links
    that lead nowhere, pipes and devices of a wanted name are listed: the worker gives them a named failure.

    Attributes:
        is_folder: whether the source is a folder.
        ignored: how many files were not wanted, so far.
        unlistable: folders that could not be listed, so far, each with the reason.
    """

    def __init__(self, source: str, selection: Selection, seen: set[tuple[int, int]] | None = None) -> None:
        """Check that the source can be listed.

        Args:
            source: a folder, or one file.
            selection: which files of the folder are wanted. One file alone is, whatever its name.
            seen: folders that were listed already, by device and inode; added to, and shared by overlapping sources.

        Raises:
            SourceError: the source does not exist or cannot be listed.
        """
        self.ignored = 0
        self.unlistable: list[str] = []
        self._selection = selection
        self._seen = set() if seen is None else seen
        self._root = os.path.abspath(source)  # noqa: PTH100 - pathlib has no business with undecodable names
        try:
            self.is_folder = stat.S_ISDIR(os.stat(self._root).st_mode)  # noqa: PTH116
            if self.is_folder:
                os.scandir(self._root).close()
        except OSError as error:
            raise SourceError(f"source {source} cannot be listed: {error.strerror}") from error

    def __iter__(self) -> Iterator[ImageRef]:
        if not self.is_folder:
            yield describe(self._root)[0]
            return
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                status = os.stat(folder)  # noqa: PTH116
                if (status.st_dev, status.st_ino) in self._seen:
                    continue
                self._seen.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is_folder(entry):
                            folders.append(entry.path)
                        elif (ref := self._wanted(entry.path)) is not None:
                            yield ref
                        else:
                            self.ignored += 1
            except OSError as error:
                self.unlistable.append(f"{folder}: {error.strerror}")

    def _wanted(self, path: str) -> ImageRef | None:
        if not self._selection.takes_name(path[len(self._root) :].lstrip("/")):
            return None  # before the disk is asked about the file
        ref, modified = describe(path)
        return ref if self._selection.takes(ref, modified) else None


def locate_file(uri: str, *, roots: Roots) -> str:
    """Return the local path of an image that may be read; whether there is a file is not looked at.

    Args:
        uri: as in an ``ImageRef``.
        roots: folders that may be read; a link that leads out of them is refused.

    Raises:
        ImageError: it names no local file, or one outside the roots.
    """
    path = uri_to_path(uri)
    # Resolving links asks the disk about every folder of the path: not for nothing, where everything is allowed.
    if ANYWHERE not in roots and not is_below(os.path.realpath(path), roots):
        raise ImageError(Status.UNREADABLE, "the file is outside the allowed roots")
    return path


def read_file(uri: str, *, roots: Roots, max_bytes: int) -> bytes:
    """Read a file whole.

    Args:
        uri: as in an ``ImageRef``.
        roots: folders that may be read; a link that leads out of them is refused.
        max_bytes: larger files are refused before a byte is read.

    Raises:
        ImageError: the file itself is the matter; trying again would not help.
        StorageError: reading failed for a reason that may pass.
    """
    path = locate_file(uri, roots=roots)
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise too_large(size, max_bytes)
            return file.read(size)  # not max_bytes: so much memory would be asked for, for each small file
    except OSError as error:
        raise _translated(error) from error


def open_file(uri: str, *, roots: Roots) -> tuple[BinaryIO, str]:
    """Open a file to read parts of it.

    Args:
        uri: as in an ``ImageRef``.
        roots: folders that may be read; a link that leads out of them is refused.

    Returns:
        The open file, and the fingerprint of its content.

    Raises:
        ImageError: the file itself is the matter; trying again would not help.
        StorageError: opening failed for a reason that may pass.
    """
    path = locate_file(uri, roots=roots)
    try:
        file = _open_regular(path)
        status = os.fstat(file.fileno())
    except OSError as error:
        raise _translated(error) from error
    return file, _fingerprint(status)


def _open_regular(path: str) -> BinaryIO:
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ImageError(Status.UNSUPPORTED, "not a regular file")
    return file


def _translated(error: OSError) -> ImageError | StorageError:
    if error.errno in _FAILURES:
        return ImageError(*_FAILURES[error.errno])
    return StorageError(f"reading failed: {error.strerror}")


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe must not wait for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a loop
        return False


def describe(path: str) -> tuple[ImageRef, float | None]:
    """Return a local file as an image, and when it was last modified; None if it is gone or leads nowhere."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # the worker will say so
        return ImageRef(path_to_uri(path), "", 0), None
    return ImageRef(path_to_uri(path), _fingerprint(status), status.st_size), status.st_mtime


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"
