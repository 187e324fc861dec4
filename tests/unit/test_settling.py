"""When a file counts as complete, and which images are remembered as sent."""

import os
from pathlib import Path

import pytest

from core.files import describe
from core.images import ImageRef
from core.selection import Selection
from producer.settling import Recent, Settling


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settling(clock: Clock) -> Settling:
    """At most three files, which must not change for two seconds."""
    return Settling(2.0, 3, Selection(max_bytes=10), clock)


def names(images: list[ImageRef]) -> list[str]:
    return [Path(ref.uri).name for ref in images]


def new_file(path: Path, content: bytes = b"1") -> str:
    path.write_bytes(content)
    return str(path)


def test_a_file_settles_once_it_has_not_changed_for_a_while(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    settling.add(new_file(tmp_path / "a.jpg"))
    clock.now += 1.9
    assert settling.take(10) == []
    clock.now += 0.2
    assert names(settling.take(10)) == ["a.jpg"]
    assert len(settling) == 0


def test_a_file_that_grows_waits_from_its_last_change_on(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.jpg")
    settling.add(path)
    for size in range(2, 6):
        clock.now += 2.1
        new_file(tmp_path / "a.jpg", b"1" * size)
        assert settling.take(10) == []
    clock.now += 2.1
    (ref,) = settling.take(10)
    assert ref.size_bytes == 5
    assert ref == describe(path)[0]


def test_another_time_of_the_same_size_is_a_change(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    path = new_file(tmp_path / "a.jpg")
    settling.add(path)
    os.utime(path, ns=(1, 1))
    clock.now += 2.1
    assert settling.take(10) == []
    clock.now += 2.1
    assert names(settling.take(10)) == ["a.jpg"]


def test_a_change_that_is_reported_again_does_not_prolong_the_wait(
    settling: Settling, clock: Clock, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "a.jpg")
    settling.add(path)
    clock.now += 1.9
    settling.add(path)
    clock.now += 0.2
    assert names(settling.take(10)) == ["a.jpg"]


def test_what_was_listed_is_compared_with_how_it_was_listed(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    settling.add(new_file(tmp_path / "a.jpg"), "0-0")
    clock.now += 2.1
    assert settling.take(10) == []


def test_files_that_vanish_are_counted_and_nothing_else(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    settling.add(new_file(tmp_path / "a.jpg"))
    settling.add(str(tmp_path / "gone before it was looked at.jpg"))
    (tmp_path / "a.jpg").unlink()
    clock.now += 2.1
    assert settling.take(10) == []
    assert (settling.vanished, len(settling)) == (2, 0)


def test_a_file_that_has_become_too_large_is_not_wanted(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    settling.add(new_file(tmp_path / "a.jpg", b"1" * 11))
    clock.now += 2.1
    assert settling.take(10) == []
    assert (settling.vanished, len(settling)) == (0, 0)


def test_no_more_files_wait_than_allowed(settling: Settling, clock: Clock, tmp_path: Path) -> None:
    paths = [new_file(tmp_path / f"{number}.jpg") for number in range(4)]
    assert [settling.add(path) for path in paths] == [True, True, True, False]
    assert settling.is_full
    assert settling.add(paths[0]), "it waits already"
    clock.now += 2.1
    assert names(settling.take(2)) == ["0.jpg", "1.jpg"]
    assert not settling.is_full
    assert settling.add(paths[3])
    assert names(settling.take(10)) == ["2.jpg"]


def test_without_a_time_to_settle_a_file_that_changes_all_the_time_does_not_hold_up_the_others(tmp_path: Path) -> None:
    clock = Clock()
    settling = Settling(0.0, 3, Selection(), clock)
    settling.add(new_file(tmp_path / "a.jpg"), "0-0")
    settling.add(new_file(tmp_path / "b.jpg"))
    clock.now += 0.1
    assert names(settling.take(10)) == ["b.jpg"]
    assert len(settling) == 1


def test_an_image_is_remembered_with_the_content_that_was_sent_last() -> None:
    recent = Recent(10)
    before, after = ImageRef("/a.jpg", "1-1", 1), ImageRef("/a.jpg", "1-2", 1)
    assert before not in recent
    recent.add(before)
    assert before in recent
    assert after not in recent
    assert ImageRef("/b.jpg", "1-1", 1) not in recent
    recent.add(after)
    assert after in recent
    assert before not in recent, "it may change back"


def test_what_was_sent_the_longest_ago_is_forgotten_first() -> None:
    recent = Recent(2)
    first, second, third = (ImageRef(f"/{number}.jpg", "1-1", 1) for number in range(3))
    again = ImageRef(first.uri, "1-2", 1)
    for ref in (first, second, again, third):
        recent.add(ref)
    assert [ref in recent for ref in (second, again, third)] == [False, True, True]
