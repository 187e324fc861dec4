"""List and read images by URI: folders of this machine."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from core.errors import ImageError, SourceError, StorageError
from core.images import ImageRef
from core.verdicts import Status

FILE_SCHEME = "file://"
ANYWHERE = Path("/")
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


def path_to_uri(path: str) -> str:
    """Name a local file: its path as it is, or a ``file://`` URI if the path is not valid UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return path


def uri_to_path(uri: str) -> str:
    """Return the local path that a URI names.

    Raises:
        ImageError: it names no local file.
    """
    if uri.startswith(FILE_SCHEME):
        uri = os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE_SCHEME)))
    if not uri.startswith("/") or "\0" in uri:
        raise ImageError(Status.UNSUPPORTED, "the URI names no local file")
    return uri


def is_named_inside(uri: str, roots: tuple[Path, ...]) -> bool:
    """Tell whether a URI names a file under one of the roots, ``..`` resolved, without looking at the disk."""
    try:
        return _is_below(os.path.normpath(uri_to_path(uri)), roots)
    except ImageError:
        return False


def _is_below(path: str, roots: tuple[Path, ...]) -> bool:
    return any(path.startswith(f"{str(root).rstrip('/')}/") for root in roots)


class Listing:
    """The images below a folder, or one file; iterate over it once, lazily and in no particular order.

    Hidden entries (``.git``, ``.cache``) are passed over. Links to folders are followed, each folder once. Links
    that lead nowhere, pipes and devices of a wanted name are listed: the worker gives them a named failure.

    Attributes:
        is_folder: whether the source is a folder.
        ignored: how many files were not wanted, so far.
        unlistable: folders that could not be listed, so far, each with the reason.
    """

    def __init__(self, source: str, is_wanted: Callable[[str], bool], seen: set[tuple[int, int]] | None = None) -> None:
        """Check that the source can be listed.

        Args:
            source: a folder, or one file.
            is_wanted: called with the path of each file relative to the source. One file alone is always wanted.
            seen: folders that were listed already, by device and inode; added to, and shared by overlapping sources.

        Raises:
            SourceError: the source does not exist or cannot be listed.
        """
        if "://" in source:
            raise SourceError(f"source {source}: only folders and files of this machine can be listed")
        self.ignored = 0
        self.unlistable: list[str] = []
        self._is_wanted = is_wanted
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
            yield _describe(self._root)
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
                        elif self._is_wanted(entry.path[len(self._root) :].lstrip("/")):
                            yield _describe(entry.path)
                        else:
                            self.ignored += 1
            except OSError as error:
                self.unlistable.append(f"{folder}: {error.strerror}")


def locate_image(uri: str, *, roots: tuple[Path, ...]) -> str:
    """Return the local path of an image that may be read; whether there is a file is not looked at.

    Args:
        uri: as in an ``ImageRef``.
        roots: folders that may be read; a link that leads out of them is refused.

    Raises:
        ImageError: it names no local file, or one outside the roots.
    """
    path = uri_to_path(uri)
    # Resolving links asks the disk about every folder of the path: not for nothing, where everything is allowed.
    if ANYWHERE not in roots and not _is_below(os.path.realpath(path), roots):
        raise ImageError(Status.UNREADABLE, "the file is outside the allowed roots")
    return path


def read_image(uri: str, *, roots: tuple[Path, ...], max_bytes: int) -> bytes:
    """Read the bytes of one image.

    Args:
        uri: as in an ``ImageRef``.
        roots: folders that may be read; a link that leads out of them is refused.
        max_bytes: larger files are refused before a byte is read.

    Raises:
        ImageError: the image itself is the matter; trying again would not help.
        StorageError: reading failed for a reason that may pass.
    """
    path = locate_image(uri, roots=roots)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(Status.UNSUPPORTED, "not a regular file")
            if status.st_size > max_bytes:
                raise ImageError(Status.TOO_LARGE, f"{status.st_size} bytes, the limit is {max_bytes}")
            return file.read(max_bytes)
    except OSError as error:
        if error.errno in _FAILURES:
            raise ImageError(*_FAILURES[error.errno]) from error
        raise StorageError(f"reading failed: {error.strerror}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe must not wait for somebody to write into it.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a loop
        return False


def _describe(path: str) -> ImageRef:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # gone already, or a link to nowhere: the worker will say so
        return ImageRef(path_to_uri(path), "", 0)
    return ImageRef(path_to_uri(path), f"{status.st_size}-{status.st_mtime_ns}", status.st_size)
