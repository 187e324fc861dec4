"""Read an image by its URI, wherever it is."""

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Self

from core.errors import ImageError
from core.files import open_file, read_file
from core.images import ImageRef
from core.members import offset_in
from core.uris import ANYWHERE, WEB_SCHEMES, Roots, is_bucket, is_named_inside, is_remote, is_web, split_member
from core.verdicts import Status

if TYPE_CHECKING:
    from core.members import Archive

#: Archives that a reader keeps open: a job has the members of one, seldom of two.
_OPEN_ARCHIVES = 4


class Reader:
    """Reads images; safe to call from many threads. Close it, or use it in a ``with``: archives stay open."""

    def __init__(self, *, roots: Roots, max_bytes: int) -> None:
        """Take the limits.

        Args:
            roots: what may be read; a link that leads out of them is refused.
            max_bytes: larger images are refused before a byte is read.
        """
        self._roots = roots
        self._max_bytes = max_bytes
        self._archives = OrderedDict[str, "Archive"]()
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archives."""
        with self._lock:
            while self._archives:
                self._archives.popitem()[1].close()

    def read(self, ref: ImageRef) -> bytes:
        """Return the bytes of one image.

        Raises:
            ImageError: the image itself is the matter; trying again would not help.
            StorageError: reading failed for a reason that may pass.
        """
        uri, member = split_member(ref.uri)
        if member is not None:
            return self._archive(uri).read(member, offset=ref.offset, max_bytes=self._max_bytes)
        if not is_remote(uri):
            return read_file(uri, roots=self._roots, max_bytes=self._max_bytes)
        _check(uri, self._roots)
        if is_bucket(uri):
            from core.buckets import read_object  # late: obstore must not be loaded before a fork

            return read_object(uri, max_bytes=self._max_bytes)
        from core.web import read_page

        return read_page(uri, roots=self._roots, max_bytes=self._max_bytes)

    def _archive(self, uri: str) -> "Archive":
        from core.archives import open_archive

        with self._lock:
            archive = self._archives.get(uri)
            if archive is None:
                file, _ = open_any(uri, roots=self._roots)
                archive = self._archives[uri] = open_archive(file, uri)
                if len(self._archives) > _OPEN_ARCHIVES:
                    self._archives.popitem(last=False)  # closes itself once no thread reads from it
            self._archives.move_to_end(uri)
            return archive


def read_image(uri: str, *, roots: Roots, max_bytes: int, fingerprint: str = "") -> bytes:
    """Read the bytes of one image; see ``Reader``, which is faster for many.

    Args:
        uri: of the image.
        roots: what may be read; a link that leads out of them is refused.
        max_bytes: larger images are refused before a byte is read.
        fingerprint: that it had, if that is known: a member of an archive is then found without a search.

    Raises:
        ImageError: the image itself is the matter; trying again would not help.
        StorageError: reading failed for a reason that may pass.
    """
    with Reader(roots=roots, max_bytes=max_bytes) as reader:
        return reader.read(ImageRef(uri, fingerprint, 0, offset_in(fingerprint)))


def open_any(uri: str, *, roots: Roots) -> tuple[BinaryIO, str]:
    """Open a file, an object or a web address to read parts of it: an archive, or a manifest.

    Returns:
        What can be read and sought in, and the fingerprint of its content.

    Raises:
        ImageError: it is not there, or may not be read.
        StorageError: opening failed for a reason that may pass.
    """
    if not is_remote(uri):
        return open_file(uri, roots=roots)
    _check(uri, roots)
    if is_web(uri):
        from core.web import open_page

        return open_page(uri, roots=roots)
    from core.buckets import open_object

    return open_object(uri)


def open_named(uri: str) -> tuple[BinaryIO, str]:
    """Open what a user has named, wherever it is; see ``open_any``. Redirects may lead to any public address."""
    return open_any(uri, roots=(ANYWHERE, uri, *WEB_SCHEMES))


def _check(uri: str, roots: Roots) -> None:
    if not is_named_inside(uri, roots):
        raise ImageError(Status.UNREADABLE, "the URI is outside the allowed roots")
