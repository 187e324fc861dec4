"""Reading ahead: images that lie behind a network are asked for before a decoding thread needs them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Lock

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from core.errors import StorageError
from core.images import ImageRef
from core.settings import Settings
from core.storage import Reader
from core.uris import is_remote, split_member

#: Images that are read or wait to be decoded: at 30 ms each, more than any CPU node scores meanwhile.
WINDOW = 64
#: No more than so many bytes of them, as listed, but always one image.
WINDOW_BYTES = 64 * 2**20


class ReadAhead:
    """Reads the images of a job: local files when asked, all others ahead. Safe to call from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Reader(roots=settings.roots, max_bytes=settings.max_bytes)
        self._pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        # An archive is read by one thread at a time, and in its order it is read once.
        self._in_order = ThreadPoolExecutor(1, thread_name_prefix="archive")
        self._lock = Lock()
        self._upcoming = deque[ImageRef]()
        self._pending: dict[ImageRef, Future[bytes]] = {}
        self._taken: set[ImageRef] = set()

    @contextmanager
    def job(self, images: Sequence[ImageRef]) -> Iterator[None]:
        """Begin with the images of a job; in the end drop what nobody asked for, and close archives."""
        self._upcoming = deque(ref for ref in images if is_remote(ref.uri) or split_member(ref.uri)[1] is not None)
        try:
            with self._lock:
                self._top_up()
            yield
        finally:
            with self._lock:
                self._upcoming.clear()
                running = [future for future in self._pending.values() if not future.cancel()]
                self._pending.clear()
                self._taken.clear()
            wait(running)  # they use the archives
            self._reader.close()

    def read(self, ref: ImageRef) -> bytes:
        """Return the bytes of an image.

        Raises:
            ImageError: the image itself is the matter; trying again would not help.
            StorageError: the storage failed several times in a row; that is no fault of the image.
        """
        if not self._upcoming and not self._pending:
            return self._read(ref)
        with self._lock:
            future = self._pending.pop(ref, None)
            if future is None:
                self._taken.add(ref)
            self._top_up()
        return self._read(ref) if future is None else future.result()

    def _top_up(self) -> None:
        waiting = sum(ref.size_bytes for ref in self._pending)
        while self._upcoming and len(self._pending) < WINDOW:
            ref = self._upcoming[0]
            if self._pending and waiting + ref.size_bytes > WINDOW_BYTES:
                break
            self._upcoming.popleft()
            if ref not in self._taken:  # a thread was faster
                pool = self._pool if split_member(ref.uri)[1] is None else self._in_order
                self._pending[ref] = pool.submit(self._read, ref)
                waiting += ref.size_bytes

    def _read(self, ref: ImageRef) -> bytes:
        try:
            return self._reader.read(ref)  # by itself: what counts attempts costs as much as reading a small file
        except StorageError:
            return self._read_again(ref)

    @retry(
        retry=retry_if_exception_type(StorageError),
        wait=wait_random_exponential(multiplier=0.4, max=5),
        stop=stop_after_attempt(3),
        reraise=True,
    )
    def _read_again(self, ref: ImageRef) -> bytes:
        return self._reader.read(ref)
