"""Objects in buckets of S3, Google Cloud Storage, Azure Blob Storage and their kin: list and read them.

Import this module late, see ``core.bucket_client``.
"""

import re
import time
from collections.abc import Iterator, Sequence
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, RawIOBase
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from core.bucket_client import (
    ERRORS,
    HINTS,
    REFUSAL,
    REFUSED,
    may_pass,
    open_client,
    split_name,
    translate,
    translated,
)
from core.errors import ImageError, SourceError, StorageError, too_large
from core.images import ImageRef
from core.selection import Selection
from core.uris import split_member
from core.verdicts import Status

import obstore  # isort: skip - only once core.bucket_client has seen that it is there
from obstore.exceptions import InvalidPathError, PermissionDeniedError  # isort: skip

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

#: What one request brings of an object that is read in parts: 30 ms of latency are little against it.
BUFFER_BYTES = 4 * 2**20
#: Keys that S3 and others put into one answer.
PAGE = 1000
#: How often a listing asks for the same page; see ``core.bucket_client.TRIES``.
LISTING_TRIES = 4
#: Before the second of them; twice as long before each further one.
PAUSE_SECONDS = 0.5
#: Groups of keys that the client refuses and that a listing goes on behind.
MAX_REFUSED = 100

#: How obstore names a key that it refuses.
_SAID_REFUSED = re.compile(r'Path "(.*?)"(?:: Encountered illegal character| contained empty path segment)', re.DOTALL)


def read_object(uri: str, *, max_bytes: int) -> bytes:
    """Read an object whole, by one request.

    Args:
        uri: ``s3://bucket/key``, ``gs://bucket/key`` or ``az://container/key``.
        max_bytes: larger objects are refused once their size is known, before their bytes come.

    Raises:
        ImageError: the object itself is the matter; trying again would not help.
        StorageError: reading failed for a reason that may pass.
        SettingsError: the address or the profile in the environment is none.
        UsageError: the environment asks for what is not installed.
    """
    bucket, key = _locate(uri)
    client = open_client(bucket)
    with translated():
        found = obstore.get(client, key)
        size = found.meta["size"]
        if size > max_bytes:
            raise too_large(size, max_bytes)
        content = bytes(found.bytes())
    if len(content) != size:
        raise StorageError(f"the storage sent {len(content)} of {size} bytes")
    return content


def open_object(uri: str) -> tuple[BinaryIO, str]:
    """Open an object to read parts of it, by requests for ``BUFFER_BYTES``.

    Reading raises the same errors, and a ``StorageError`` if the object is another one by then.

    Returns:
        The open object, and the fingerprint of its content.

    Raises:
        ImageError: the object itself is the matter; trying again would not help.
        StorageError: opening failed for a reason that may pass.
        SettingsError: the address or the profile in the environment is none.
        UsageError: the environment asks for what is not installed.
    """
    bucket, key = _locate(uri)
    client = open_client(bucket)
    with translated():
        found = obstore.head(client, key)
    return BufferedReader(_RawObject(client, found), BUFFER_BYTES), _fingerprint(found)


class BucketListing:
    """The images below a prefix of a bucket, or one object; iterate over it once, lazily.

    A prefix ends where a part of the key ends: ``s3://bucket/a`` lists ``a/1.jpg``, not ``ab.jpg``. Empty objects that
    only mark a folder are passed over.

    Attributes:
        is_folder: whether the source is more than one object.
        ignored: how many objects were not wanted, so far.
        unlistable: what could not be listed, so far, each with the reason.
    """

    def __init__(self, source: str, selection: Selection) -> None:
        """Ask for the first objects.

        Args:
            source: a bucket, a bucket and a prefix, or an object.
            selection: which objects are wanted. One object alone is, whatever its name.

        Raises:
            SourceError: the bucket does not exist or cannot be listed.
            SettingsError: the address or the profile in the environment is none.
            UsageError: the environment asks for what is not installed.
        """
        self.ignored = 0
        self.unlistable: list[str] = []
        self._source, self._selection = source, selection
        name = split_name(source)
        if name is None or split_member(source)[1] is not None:
            raise SourceError(f"source {source} names no bucket: write s3://BUCKET/PREFIX, gs:// and az:// likewise")
        self._bucket, key = name
        if key.startswith("/") or REFUSED.search(key):
            raise SourceError(f"source {source} cannot be listed: {REFUSAL}")
        self._prefix = key.rstrip("/")
        try:
            self._client = open_client(self._bucket)
            is_folder = not key or key.endswith("/")
            self._alone, denied = (None, None) if is_folder else _look_at(self._client, key)
            self._pages = self._list()
            self._first = next(self._pages, ()) if self._alone is None else ()
            if denied is not None and not self._first:
                raise denied
        except (ImageError, StorageError) as error:
            hint = "" if self.unlistable else f"; {HINTS[source.partition('://')[0]]}"
            raise SourceError(f"source {source} cannot be listed: {error}{hint}") from error
        self.is_folder = self._alone is None

    def __iter__(self) -> Iterator[ImageRef]:
        if self._alone is not None:
            yield self._ref(self._alone)
            return
        try:
            for found in chain(self._first, chain.from_iterable(self._pages)):
                if (ref := self._wanted(found)) is not None:
                    yield ref
        except (ImageError, StorageError) as error:
            self.unlistable.append(f"{self._source}: {error}")

    def _wanted(self, found: "ObjectMeta") -> ImageRef | None:
        name = found["path"][len(self._prefix) :].lstrip("/")
        # The client takes off the slash that tells a marker of a folder from an empty object.
        is_marker = not found["size"] and "." not in name.rpartition("/")[2]
        if is_marker or not self._selection.takes_name(name):
            self.ignored += 1
            return None
        ref = self._ref(found)
        if split_member(ref.uri)[1] is not None:
            self.unlistable.append(f"{ref.uri}: its name is that of a member of an archive")
            return None
        if not self._selection.takes(ref, found["last_modified"].timestamp()):
            self.ignored += 1
            return None
        return ref

    def _ref(self, found: "ObjectMeta") -> ImageRef:
        return ImageRef(f"{self._bucket}/{found['path']}", _fingerprint(found), found["size"])

    def _list(self) -> Iterator[Sequence["ObjectMeta"]]:
        """Yield the objects, some at a time, in the order of their keys.

        After a failure it goes on behind the last key. A key that the client refuses fails the whole answer that it is
        in: what comes before it there is lost and booked, and listing goes on behind it.
        """
        last, failures, refused, chunk = "", 0, 0, PAGE
        while True:
            start = last
            try:
                for page in obstore.list(self._client, self._prefix, offset=start or None, chunk_size=chunk):
                    last, failures = max(last, page[-1]["path"]), 0
                    # Emulators of Azure begin from the start, whatever they are asked for.
                    yield [found for found in page if found["path"] > start] if start else page
            except InvalidPathError as error:
                if chunk > 1:
                    chunk = 1  # what it had of a chunk is lost, too: once more, one by one
                    continue
                refused += 1
                last, chunk = self._pass_over(str(error), last, refused), PAGE
            except ERRORS as error:
                failures += 1
                if failures == LISTING_TRIES or not may_pass(error):
                    raise translate(error) from error
                time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
            else:
                return

    def _pass_over(self, said: str, last: str, refused: int) -> str:
        """Book what a refused key hides, and return a key to go on behind."""
        found = _SAID_REFUSED.search(said)
        key = found[1] if found else ""
        beyond = _beyond(key)
        if beyond <= last or refused > MAX_REFUSED:
            raise StorageError(f"{REFUSAL}; nothing was listed after {self._bucket}/{last}")
        self.unlistable.append(
            f"{self._bucket}/{key}: {REFUSAL}; keys between {last!r} and {beyond!r} were not listed either"
        )
        return beyond


class _RawObject(RawIOBase):
    """An object as a file, each read of which is a request for a range; never bytes of a newer object."""

    def __init__(self, client: "ObjectStore", found: "ObjectMeta") -> None:
        self._client = client
        self._found = found
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        begin = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._found["size"]}[whence]
        if begin + offset < 0:
            raise ValueError(f"negative position {begin + offset}")
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: "Buffer", /) -> int:
        view = memoryview(buffer).cast("B")
        part = self._ask(len(view))
        view[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        return self._ask(self._found["size"])  # the inherited one asks for a few kilobytes at a time

    def _ask(self, length: int) -> bytes:
        end = min(self._position + length, self._found["size"])
        if end <= self._position:
            return b""
        span: GetOptions = {"range": (self._position, end), "if_match": self._found["e_tag"]}
        with translated():
            part = bytes(obstore.get(self._client, self._found["path"], options=span).bytes())
        if len(part) != end - self._position:
            raise StorageError(f"the storage sent {len(part)} of {end - self._position} bytes")
        self._position = end
        return part


def _locate(uri: str) -> tuple[str, str]:
    """Return the bucket, with its scheme, and the key of an object."""
    bucket, key = split_name(uri) or ("", "")
    if not key:
        raise ImageError(Status.UNSUPPORTED, "the URI names no object in a bucket")
    # A slash at either end would be taken off in silence, and another object read.
    if key.startswith("/") or key.endswith("/") or REFUSED.search(key):
        raise ImageError(Status.UNSUPPORTED, REFUSAL)
    return bucket, key


def _look_at(client: "ObjectStore", key: str) -> tuple["ObjectMeta | None", StorageError | None]:
    """Return an object, or why nobody may know whether there is one; nothing if there is none."""
    try:
        return obstore.head(client, key), None
    except FileNotFoundError:
        return None, None
    except PermissionDeniedError as error:
        return None, StorageError(str(translate(error)))
    except ERRORS as error:
        raise translate(error) from error


def _fingerprint(found: "ObjectMeta") -> str:
    # Azure puts quotes about it in one answer and none in another.
    tag = (found["e_tag"] or "").removeprefix("W/").strip('"')
    return f"{tag or int(found['last_modified'].timestamp())}-{found['size']}"


def _beyond(key: str) -> str:
    """Return what comes after all keys that are refused for the same reason as this one; empty if it is not refused."""
    found = REFUSED.search(key)
    if found is None:
        return ""
    if found["empty"]:
        return key[: found.start() + 1] + "0"  # the character after the slash
    if found["dots"]:
        return key[: found.end()] + "0"
    return key[: found.start()] + (" " if found["control"] else "\x80")
