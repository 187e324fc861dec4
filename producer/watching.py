"""``producer watch``: queue what appears in folders and buckets, as one scan from start to stop."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from core.broker import revive
from core.errors import BrokerError, DatabaseError, FacesieveError, SourceError
from core.files import FolderListing
from core.images import ImageRef
from core.selection import Selection
from core.uris import is_remote, uri_to_path
from db.queries import find_model
from producer.arrivals import PIECE_SIZE, FolderReports, Lister, Piece, sort_sources
from producer.enqueue import TOUCH_SECONDS, Enqueuer, Tally, Target, cut, without_done
from producer.patience import Patience
from producer.session import Session
from producer.settling import Recent, Settling

FOLDER_INTERVAL_SECONDS = 600.0
BUCKET_INTERVAL_SECONDS = 60.0
MOST_SETTLING = 100_000
MOST_NEW_FOLDERS = 10_000
NEW_FOLDER_SECONDS = 1.0  # until the kernel reports what appears in a new folder, too
TICK_SECONDS = 0.2
JOIN_SECONDS = 1.0
#: Between two looks for jobs that the broker has lost, and before a second look that must find the same.
LOST_SECONDS, LOST_AGAIN_SECONDS = 300.0, 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, in seconds.

    Attributes:
        settle: a file is read once it has not changed for so long.
        max_wait: an image that has settled waits at most so long for others to fill its job.
        interval: between full listings; None means ten minutes for folders and one minute for buckets.
    """

    settle: float = 2.0
    max_wait: float = 5.0
    interval: float | None = None


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """The watch is over, though not everything that was found is sent."""


class Watch:
    """Queues what appears in some folders and buckets until it is stopped.

    What is remembered is bounded: the files that settle, and as many of the images sent as can wait in the queue.

    Attributes:
        tally: the books, kept up to date.
        settling: the files that are not complete yet.
    """

    def __init__(
        self,
        session: Session,
        sources: Sequence[str],
        target: Target,
        *,
        selection: Selection,
        pace: Pace,
        say: Callable[[str], None],
    ) -> None:
        """Check that every source can be watched, and open a scan.

        Args:
            session: open connections.
            sources: folders and buckets; they may be empty.
            target: by what to score.
            selection: which images are wanted.
            pace: how fast.
            say: for people, beside the results.

        Raises:
            SourceError: a source does not exist or cannot be listed.
            UsageError: it is neither a folder nor a bucket, or an optional package is missing.
        """
        folders, buckets = sort_sources(sources, selection)
        self._stopped = Event()
        self._session = session
        self._target = target
        self._selection = selection
        self._pace = pace
        self._folders = folders
        self._patience = Patience(self._stopped, self._keep_up, say)
        self._enqueuer = Enqueuer(session.settings, session.engine, session.app, session.client, self._patience)
        self._folder_lister = Lister(folders, selection, pace.interval or FOLDER_INTERVAL_SECONDS, say)
        self._bucket_lister = Lister(buckets, selection, pace.interval or BUCKET_INTERVAL_SECONDS, say)
        self._reports = FolderReports(folders, self._folder_lister.list_soon, say)
        self.settling = Settling(pace.settle, MOST_SETTLING, selection)
        self._new_folders = deque[tuple[float, str]]()
        # An image that was sent longer ago is scored, or in a job that failed.
        self._recent = Recent(2 * session.settings.max_queued_images)
        self._ready: list[ImageRef] = []
        self._ready_since = 0.0
        self._touched = time.monotonic()
        self._next_look = time.monotonic() + LOST_SECONDS
        self._lost: set[str] = set()
        self.tally = self._enqueuer.start(list(sources), target)

    @property
    def unsent(self) -> int:
        """How many images were to be sent and are not."""
        return len(self._ready) + self.tally.listed - self.tally.skipped - self.tally.sent

    def stop(self) -> None:
        """Ask for the end; fit for a signal handler."""
        self._stopped.set()

    def run(self, on_tick: Callable[["Watch"], None]) -> None:
        """Watch until stopped, or until the scan is cancelled.

        Args:
            on_tick: called several times a second.

        Raises:
            BrokerError, DatabaseError: at the end, what has settled could not be sent.
        """

        def tick(tally: Tally) -> None:
            on_tick(self)
            if self._stopped.is_set() and tally.is_waiting:
                raise Stop

        status = "interrupted"
        threads: list[Lister | FolderReports] = [self._folder_lister, self._bucket_lister, self._reports]
        self._bucket_lister.list_soon()
        for thread in threads:
            thread.start()
        try:
            with suppress(Stop):
                while not self._stopped.is_set():
                    is_busy = self._step(tick)
                    on_tick(self)
                    self._stopped.wait(0 if is_busy else TICK_SECONDS)
                self._take_settled()
                self._send(tick, everything=True)
            status = "listed"
        finally:
            for thread in threads:
                thread.stop()
            for thread in threads:
                thread.join(JOIN_SECONDS)
            self.tally.ignored = self._folder_lister.ignored + self._bucket_lister.ignored
            self.tally.unlistable = self._folder_lister.unlistable + self._bucket_lister.unlistable
            self._enqueuer.finish(self.tally, status, unlistable=len(self.tally.unlistable))

    def _step(self, tick: Callable[[Tally], None]) -> bool:
        """Do what there is to do; return whether there may be more."""
        self._take_reports()
        is_busy = self._take_listed(tick)
        is_busy |= self._take_settled()
        self._send(tick)
        now = time.monotonic()
        if now - self._touched > TOUCH_SECONDS:
            self._touched = now
            if not self._patience(partial(self._enqueuer.touch, self.tally)):
                raise Stop  # cancelled
        if now > self._next_look:
            self._send_lost_jobs()
        return is_busy

    # --- what appears ----------------------------------------------------------------------------------------------

    def _take_reports(self) -> None:
        """Take what the kernel reports; where that is too much, a full listing finds the rest."""
        now = time.monotonic()
        for path in self._reports.take():
            if not os.path.isdir(path):  # noqa: PTH112
                is_taken = not self._is_wanted(path) or self.settling.add(path)
            elif os.path.islink(path):  # noqa: PTH114
                is_taken = False  # the listing takes each folder once
            else:
                is_taken = len(self._new_folders) < MOST_NEW_FOLDERS
                if is_taken:
                    self._new_folders.append((now + NEW_FOLDER_SECONDS, path))
            if not is_taken:
                self._folder_lister.list_soon()
        while self._new_folders and self._new_folders[0][0] <= now:
            self._look_into(self._new_folders.popleft()[1])

    def _look_into(self, folder: str) -> None:
        """Take the files of a new folder: those that were in it before the kernel reported of it."""
        if not any(self._below_folders(folder)):
            return
        with suppress(SourceError):  # it is gone again
            for ref in FolderListing(folder, Selection(include=("*",)), set()):
                path = uri_to_path(ref.uri)
                if ref.fingerprint and self._is_wanted(path) and not self.settling.add(path, ref.fingerprint):
                    self._folder_lister.list_soon()
                    return

    def _is_wanted(self, path: str) -> bool:
        return any(self._selection.takes_name(name) for name in self._below_folders(path))

    def _below_folders(self, path: str) -> Iterator[str]:
        """Yield the name of a path below each folder that it is in, unless it is hidden there."""
        for folder in self._folders:
            start = f"{folder.rstrip('/')}/"
            if path.startswith(start) and "/." not in path[len(start) - 1 :]:
                yield path[len(start) :]

    def _take_listed(self, tick: Callable[[Tally], None]) -> bool:
        # Not a file more than can settle: the listing waits.
        listers = (self._folder_lister, self._bucket_lister) if len(self.settling) <= MOST_SETTLING - PIECE_SIZE else ()
        pieces = [piece for lister in listers if (piece := lister.take())]
        for piece in pieces:
            self._sort(piece, tick)
        return bool(pieces)

    def _sort(self, piece: Piece, tick: Callable[[Tally], None]) -> None:
        listed = [ref for ref in piece.images if ref.fingerprint]  # others lead nowhere
        wanted = self._without_done(listed)
        skipped = len(listed) - len(wanted)
        if piece.is_first and skipped:  # later, everything that was sent meanwhile would count as skipped each time
            self.tally.listed += skipped
            self.tally.skipped += skipped
            if not self._enqueuer.send(self._target, [], self.tally, tick, skipped=skipped):
                raise Stop
        for ref in wanted:
            if is_remote(ref.uri):
                self._make_ready(ref)
            elif ref not in self._recent:
                self.settling.add(uri_to_path(ref.uri), ref.fingerprint)

    def _take_settled(self) -> bool:
        settled = self.settling.take(PIECE_SIZE)
        for ref in self._without_done(settled):
            self._make_ready(ref)
        return bool(settled)

    # --- what is sent ----------------------------------------------------------------------------------------------

    def _without_done(self, images: list[ImageRef]) -> list[ImageRef]:
        if self._target.model_id is None:  # until a worker has registered it
            model_id = self._patience(partial(find_model, self._session.engine, self._target.name))
            self._target = replace(self._target, model_id=model_id)
        return self._patience(partial(without_done, self._session.engine, images, self._target))

    def _make_ready(self, ref: ImageRef) -> None:
        if ref in self._recent:
            return
        self._recent.add(ref)
        if not self._ready:
            self._ready_since = time.monotonic()
        self._ready.append(ref)

    def _send(self, tick: Callable[[Tally], None], *, everything: bool = False) -> None:
        size = self._session.settings.job_size
        is_time = everything or time.monotonic() - self._ready_since > self._pace.max_wait
        number = len(self._ready) if is_time else len(self._ready) // size * size
        if not number:
            return
        images, self._ready = self._ready[:number], self._ready[number:]
        self._ready_since = time.monotonic()
        self.tally.listed += number
        if not self._enqueuer.send(self._target, cut(images, size), self.tally, tick):
            raise Stop

    def _send_lost_jobs(self) -> None:
        """Send again the jobs that the broker does not hold, at two looks: on its way to a worker, nobody holds one."""
        find = partial(self._enqueuer.stuck, self.tally.scan_id, self._target.name, failed=False)
        lost = set(self._patience(find))
        for job_id in lost & self._lost:
            self._patience(partial(self._enqueuer.resend, job_id))
        self._lost = lost - self._lost
        self._next_look = time.monotonic() + (LOST_AGAIN_SECONDS if self._lost else LOST_SECONDS)

    def _keep_up(self, error: FacesieveError) -> None:
        """While the broker is away: start an embedded one again, and give a sign of life."""
        if isinstance(error, BrokerError):
            self._next_look = time.monotonic()  # it may have lost jobs
            with suppress(BrokerError):
                revive(self._session.settings, self._session.app.conf.broker_url)
            with suppress(DatabaseError):
                self._enqueuer.touch(self.tally)
