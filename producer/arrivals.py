"""What appears in folders and buckets: as the kernel reports it, and by listing them in full now and then."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread

from core.errors import SourceError, StorageError, UsageError
from core.images import ImageRef
from core.selection import Selection
from core.uris import has_archive_suffix, is_bucket, is_remote
from producer.sources import Listing, is_manifest, open_source

try:
    from watchfiles import Change, watch
except ImportError as error:
    raise UsageError("watchfiles is not installed: pip install 'facesieve[watch]'") from error

PIECE_SIZE = 2048  # images that are handed over, and then looked up, in one go
PIECE_SECONDS = 0.5
MOST_REPORTED = 100_000  # names that may wait to be taken
LOOK_SECONDS = 0.5  # between two looks whether a folder is still the same, and whether to stop
GROUP_MILLISECONDS = 200  # reports are gathered for
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0  # before reports are asked for again that were refused or broke off
LEAST_REST_SECONDS = 5.0  # between two full listings


def sort_sources(sources: Sequence[str], selection: Selection) -> tuple[list[str], list[str]]:
    """Return the folders, as absolute paths, and the buckets among the sources, each once.

    Raises:
        SourceError: one does not exist or cannot be listed.
        UsageError: one is something else.
    """
    folders: dict[str, None] = {}
    buckets: dict[str, None] = {}
    for source in sources:
        path = os.path.abspath(source)  # noqa: PTH100 - as the listing does
        if is_bucket(source) and not has_archive_suffix(source) and not is_manifest(source):
            open_source(source, selection, set())
            buckets[source] = None
        elif not is_remote(source) and os.path.isdir(path):  # noqa: PTH112
            open_source(path, selection, set())
            folders[path] = None
        elif "://" in source or os.path.lexists(path):
            raise UsageError(f"source {source} cannot be watched: name a folder, or a bucket and a prefix in it")
        else:
            raise SourceError(f"source {source} does not exist")
    return list(folders), list(buckets)


class FolderReports(Thread):
    """Names of what was added or changed below some folders, as the kernel reports it.

    There are gaps: network file systems report nothing, a burst may be dropped, a folder may be too large, and a name
    that is no UTF-8 ends the reports until they are asked for anew. So folders are listed in full besides.
    """

    def __init__(self, folders: Sequence[str], on_gap: Callable[[], None], say: Callable[[str], None]) -> None:
        """Begin nothing yet.

        Args:
            folders: absolute paths.
            on_gap: called when only a full listing tells what has appeared: at the beginning, too.
            say: for people, once.
        """
        super().__init__(name="reports", daemon=True)
        self._folders = tuple(folders)
        self._on_gap = on_gap
        self._say = say
        self._has_said = False
        self._is_complete = False  # every change of the folders that are there is reported
        self._passes_over = False  # folders that may not be read; watchfiles then says nothing of too many ones, either
        self._names: set[str] = set()
        self._lock = Lock()
        self._stopped = Event()

    def stop(self) -> None:
        """Make the thread end, within a moment."""
        self._stopped.set()

    def take(self) -> set[str]:
        """Return what was reported since the last time."""
        with self._lock:
            names, self._names = self._names, set()
        return names

    def run(self) -> None:
        """Follow the reports until stopped."""
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            began, self._is_complete = time.monotonic(), False
            try:
                self._follow()
            except FileNotFoundError:  # a folder went away just now
                self._stopped.wait(LOOK_SECONDS)
            except (OSError, RuntimeError, ValueError) as error:  # what watchfiles raises
                if isinstance(error, PermissionError) and not self._passes_over:
                    self._passes_over = True  # the listing names them
                    continue
                self._say_once(str(error).partition(" about [")[0])
                if not self._is_complete:
                    self._on_gap()  # otherwise when reports are complete again
                pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else pause
                self._stopped.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _follow(self) -> None:
        """Take down what is reported until one of the folders goes away, comes, or is another one than before."""
        identities = [_identity(folder) for folder in self._folders]
        present = [folder for folder, identity in zip(self._folders, identities, strict=True) if identity]
        if not present:
            self._stopped.wait(LOOK_SECONDS)
            return
        reports = watch(
            *present, watch_filter=None, debounce=GROUP_MILLISECONDS, rust_timeout=round(LOOK_SECONDS * 1000),
            yield_on_timeout=True, stop_event=self._stopped, raise_interrupt=False,
            ignore_permission_denied=self._passes_over,
        )  # fmt: skip
        with closing(reports):
            for changes in reports:
                if not self._is_complete:
                    self._is_complete = True
                    self._on_gap()
                self._note(path for change, path in changes if change is not Change.deleted)
                # A folder that is made anew may get the number of the old one, whose end was reported, though.
                is_gone = any(change is Change.deleted and path in present for change, path in changes)
                if is_gone or identities != [_identity(folder) for folder in self._folders]:
                    return

    def _note(self, names: Iterator[str]) -> None:
        with self._lock:
            self._names.update(names)
            is_full = len(self._names) > MOST_REPORTED
            if is_full:
                self._names = set()
        if is_full:
            self._on_gap()

    def _say_once(self, reason: str) -> None:
        if not self._has_said:
            self._say(f"note: changes are not always reported ({reason}): full listings find what is missed")
        self._has_said = True


@dataclass(frozen=True, slots=True)
class Piece:
    """Some images of a full listing.

    Attributes:
        images: at most ``PIECE_SIZE``.
        is_first: whether the listing is the first one.
    """

    images: list[ImageRef]
    is_first: bool


class Lister(Thread):
    """Lists sources in full, again and again, and hands the images over in pieces.

    Attributes:
        ignored: files that were passed over in the latest listing.
        unlistable: what could not be listed then, each with the reason.
    """

    def __init__(
        self, sources: Sequence[str], selection: Selection, interval: float, say: Callable[[str], None]
    ) -> None:
        """Begin nothing yet.

        Args:
            sources: folders or buckets.
            selection: which of their images are wanted.
            interval: seconds between two listings, unless one is asked for before.
            say: for people: when a source goes away and when it is back.
        """
        super().__init__(name="lister", daemon=True)  # a server that hangs must not keep the process from its end
        self.ignored = 0
        self.unlistable: list[str] = []
        self._sources = tuple(sources)
        self._selection = selection
        self._interval = interval
        self._say = say
        self._away: set[str] = set()
        self._is_first = True
        self._rest = 0.0
        self._failure: Exception | None = None
        self._pieces = Queue[Piece](maxsize=2)
        self._is_due = Event()
        self._stopped = Event()

    def stop(self) -> None:
        """Make the thread end, as soon as its source answers."""
        self._stopped.set()
        self._is_due.set()

    def list_soon(self) -> None:
        """Ask for a full listing before its time; it begins after a rest as long as the last one took."""
        self._is_due.set()

    def take(self) -> Piece | None:
        """Return the next piece if there is one now. As long as none is taken, the listing waits."""
        if self._failure is not None:
            raise self._failure
        with suppress(Empty):
            return self._pieces.get_nowait()
        return None

    def run(self) -> None:
        """List until stopped."""
        try:
            while self._is_time():
                began = time.monotonic()
                self._list_all()
                self._is_first = False
                self._rest = min(max(LEAST_REST_SECONDS, time.monotonic() - began), self._interval)
        except Exception as error:
            self._failure = error  # for whoever takes the pieces

    def _is_time(self) -> bool:
        """Return when a listing is due; False if there will be none."""
        self._stopped.wait(self._rest)
        self._is_due.wait(self._interval - self._rest)
        self._is_due.clear()
        return not self._stopped.is_set()

    def _list_all(self) -> None:
        seen: set[tuple[int, int]] = set()
        listings: list[Listing] = []
        for source in self._sources:
            try:
                listings.append(open_source(source, self._selection, seen))
                for images in _pieces(listings[-1]):
                    if not self._hand_over(Piece(images, self._is_first)):
                        return
            except (SourceError, StorageError) as error:
                if source not in self._away:
                    self._say(f"note: {error}; it is tried again")
                self._away.add(source)
            else:
                if source in self._away:
                    self._say(f"note: source {source} can be listed again")
                self._away.discard(source)
        self.ignored = sum(listing.ignored for listing in listings)
        self.unlistable = [line for listing in listings for line in listing.unlistable]

    def _hand_over(self, piece: Piece) -> bool:
        """Return False if stopped meanwhile."""
        while not self._stopped.is_set():
            with suppress(Full):
                self._pieces.put(piece, timeout=LOOK_SECONDS)
                return True
        return False


def _pieces(listing: Listing) -> Iterator[list[ImageRef]]:
    piece: list[ImageRef] = []
    began = time.monotonic()
    for ref in listing:
        piece.append(ref)
        if len(piece) == PIECE_SIZE or time.monotonic() - began > PIECE_SECONDS:
            yield piece
            piece, began = [], time.monotonic()
    if piece:
        yield piece


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what tells a folder from another one of the same name; None if there is none."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - as the listing does
    except OSError:
        return None
    return status.st_dev, status.st_ino
