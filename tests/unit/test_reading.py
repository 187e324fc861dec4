"""Images behind a network are read before they are asked for; local files are not."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from core.errors import ImageError, StorageError
from core.images import ImageRef
from core.settings import load_settings
from core.storage import Reader
from core.verdicts import Status
from worker import reading
from worker.reading import ReadAhead

DEADLINE = 10.0


def remote(number: int, size: int = 10) -> ImageRef:
    """Return an image of a bucket."""
    return ImageRef(f"s3://bucket/{number}.jpg", "etag", size)


class Storage:
    """Stands for a network: notes what it is asked for, and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.failures: dict[str, list[Exception]] = {}
        self._lock = threading.Lock()

    def read(self, ref: ImageRef) -> bytes:
        """Answer with the URI."""
        with self._lock:
            self.asked.append(ref.uri)
            failure = self.failures.get(ref.uri, [])
            error = failure.pop(0) if failure else None
        assert self.may_answer.wait(DEADLINE)
        if error is not None:
            raise error
        return ref.uri.encode()


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Replace what reads."""
    made = Storage()
    monkeypatch.setattr(Reader, "read", made.read)
    return made


def read_ahead(**settings: Any) -> ReadAhead:
    """Return a reader with few threads."""
    return ReadAhead(load_settings(read_threads=4, **settings))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        threading.Event().wait(0.005)


def test_every_image_is_read_once_and_given_to_who_asked_for_it(storage: Storage) -> None:
    refs = [remote(number) for number in range(300)]
    ahead = read_ahead()
    with ahead.job(refs):
        assert [ahead.read(ref) for ref in refs] == [ref.uri.encode() for ref in refs]
    assert sorted(storage.asked) == sorted(ref.uri for ref in refs)


def test_images_are_asked_for_before_they_are_needed_but_not_all_of_them(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WINDOW", 8)
    refs = [remote(number) for number in range(20)]
    ahead = read_ahead()
    with ahead.job(refs):
        wait_until(lambda: len(storage.asked) == 8)
        ahead.read(refs[0])
        wait_until(lambda: len(storage.asked) == 9)


def test_what_is_read_ahead_is_bounded_in_bytes_yet_a_large_image_is_read(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WINDOW_BYTES", 25)
    refs = [remote(1), remote(2), remote(3), remote(4, size=1000), remote(5)]
    ahead = read_ahead()
    with ahead.job(refs):
        wait_until(lambda: len(storage.asked) == 2)
        assert [ahead.read(ref) for ref in refs] == [ref.uri.encode() for ref in refs]
    assert len(storage.asked) == 5


def test_threads_that_run_ahead_of_the_window_read_for_themselves_and_nothing_twice(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "WINDOW", 2)
    refs = [remote(number) for number in range(20)]
    ahead = read_ahead()
    with ahead.job(refs):
        for ref in reversed(refs):
            assert ahead.read(ref) == ref.uri.encode()
    assert sorted(storage.asked) == sorted(ref.uri for ref in refs)


def test_local_files_are_left_until_they_are_asked_for_and_members_of_archives_are_not(storage: Storage) -> None:
    file, member = ImageRef("/data/a.jpg", "1-1", 1), ImageRef("/data/a.tar#b.jpg", "1-1", 1)
    ahead = read_ahead()
    with ahead.job([file, member]):
        wait_until(lambda: storage.asked == [member.uri])
        assert ahead.read(file) == file.uri.encode()


def test_a_failure_reaches_who_asked_for_that_image_and_nobody_else(storage: Storage) -> None:
    refs = [remote(number) for number in range(3)]
    storage.failures[refs[1].uri] = [ImageError(Status.NOT_FOUND, "the object is gone")]
    ahead = read_ahead()
    with ahead.job(refs):
        assert ahead.read(refs[0])
        with pytest.raises(ImageError, match="gone"):
            ahead.read(refs[1])
        assert ahead.read(refs[2])


def test_what_may_pass_is_tried_four_times(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReadAhead._read_again.retry, "sleep", lambda _: None)  # type: ignore[attr-defined]
    refs = [remote(1), remote(2)]
    storage.failures = {ref.uri: [StorageError("reset")] * tries for ref, tries in zip(refs, (3, 4), strict=True)}
    ahead = read_ahead()
    with ahead.job(refs):
        assert ahead.read(refs[0])
        with pytest.raises(StorageError, match="reset"):
            ahead.read(refs[1])
    assert storage.asked.count(refs[0].uri) == storage.asked.count(refs[1].uri) == 4


def test_the_next_job_begins_with_nothing_of_the_last_one(storage: Storage) -> None:
    storage.may_answer.clear()
    ahead = read_ahead()
    with ahead.job([remote(number) for number in range(50)]):
        wait_until(lambda: len(storage.asked) == 4)
        storage.may_answer.set()
    asked = len(storage.asked)
    with ahead.job([remote(100)]):
        assert ahead.read(remote(100)) == remote(100).uri.encode()
    assert set(storage.asked[asked:]) == {remote(100).uri}
