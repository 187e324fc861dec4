"""Which of the files that appear are complete, and which images were sent already."""

import time
from collections import OrderedDict
from collections.abc import Callable

from core.files import describe
from core.images import ImageRef
from core.selection import Selection


class Settling:
    """Files that wait until their size and time of modification have not changed for a while.

    Attributes:
        vanished: how many files went away while they waited.
    """

    def __init__(
        self, seconds: float, most: int, selection: Selection, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without any.

        Args:
            seconds: that a file must not have changed for.
            most: that may wait at a time.
            selection: what their sizes and times must be like in the end.
            clock: seconds that never go back.
        """
        self.vanished = 0
        self._seconds = seconds
        self._most = most
        self._selection = selection
        self._clock = clock
        #: By path: the fingerprint and when it was first seen, the longest ago first.
        self._waiting = OrderedDict[str, tuple[str, float]]()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more files can be added."""
        return len(self._waiting) >= self._most

    def add(self, path: str, fingerprint: str | None = None) -> bool:
        """Let a file wait. Return False if too many do already.

        Args:
            path: absolute.
            fingerprint: as listed just now; None means to look.
        """
        if path in self._waiting:
            return True  # what has changed is seen when its time is up
        if self.is_full:
            return False
        found = describe(path)[0].fingerprint if fingerprint is None else fingerprint
        self._waiting[path] = (found, self._clock())
        return True

    def take(self, most: int) -> list[ImageRef]:
        """Return files that have settled, and forget them.

        Args:
            most: how many at a time.
        """
        settled: list[ImageRef] = []
        now = self._clock()
        while self._waiting and len(settled) < most:
            path, (fingerprint, since) = next(iter(self._waiting.items()))
            if now - since <= self._seconds:
                break
            del self._waiting[path]
            ref, modified = describe(path)
            if not ref.fingerprint:
                self.vanished += 1
            elif ref.fingerprint != fingerprint:
                self._waiting[path] = (ref.fingerprint, now)
            elif self._selection.takes(ref, modified):
                settled.append(ref)
        return settled


class Recent:
    """The images that were sent last, so that none is sent again while it waits to be scored."""

    def __init__(self, most: int) -> None:
        """Begin without any.

        Args:
            most: to remember; what was sent the longest ago is forgotten first.
        """
        self._most = most
        #: Of each URI the content that was sent last: what changes and changes back is sent again.
        self._contents = OrderedDict[bytes, int]()

    def __contains__(self, ref: ImageRef) -> bool:
        return self._contents.get(ref.id) == hash(ref.fingerprint)

    def add(self, ref: ImageRef) -> None:
        """Remember that an image is sent."""
        key = ref.id
        self._contents[key] = hash(ref.fingerprint)
        self._contents.move_to_end(key)
        if len(self._contents) > self._most:
            self._contents.popitem(last=False)
