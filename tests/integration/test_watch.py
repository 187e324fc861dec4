"""What appears in folders and buckets while they are watched is queued, on a real Valkey."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from core.files import describe
from core.selection import Selection
from producer import arrivals, watching
from producer.watching import Pace
from tests.buckets import Bucket
from tests.integration.commands import HOSTILE
from tests.integration.producing import Producer, job_in, make_files, messages, work
from tests.integration.watched import (
    FIRST,
    LISTING,
    SETTLE_SECONDS,
    WatchFolders,
    queued,
    wait_for,
    wait_for_queued,
)


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """The URL of an SQLite file: what is seen of folders does not depend on the kind of database."""
    shutil.copy(sqlite_template, tmp_path / "facesieve.db")
    return f"sqlite:///{tmp_path / 'facesieve.db'}"


def test_what_is_there_is_queued_and_then_what_appears(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    with watch(folder) as watched:
        wait_for_queued(client, FIRST)
        (folder / "new.jpg").write_bytes(b"new")
        (folder / "notes.txt").write_bytes(b"none of our business")
        wait_for_queued(client, FIRST, "new.jpg")
    assert watched.watch.tally.sent == 2
    assert watched.errors == []
    assert watched.said == []


def test_an_empty_folder_can_be_watched(watch: WatchFolders, client: "redis.Redis", tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with watch(tmp_path / "empty") as watched:
        wait_for(lambda: watched.rounds, "the first listing")
        (tmp_path / "empty" / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, "a.jpg")


def test_a_file_that_is_being_written_is_not_queued_until_it_is_complete(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    path = folder / "long.jpg"
    with watch(folder):
        wait_for_queued(client, FIRST)
        end = time.monotonic() + 5 * SETTLE_SECONDS
        with path.open("wb", buffering=0) as file:
            while time.monotonic() < end:
                file.write(b"some more")
                assert "long.jpg" not in queued(client)
                threading.Event().wait(SETTLE_SECONDS / 6)  # a slow writer
        wait_for_queued(client, FIRST, "long.jpg")
    (ref,) = [ref for message in messages(client) for ref in job_in(message).images if ref.uri == str(path)]
    assert ref == describe(str(path))[0]


def test_a_file_that_is_moved_in_is_seen_as_it_is(watch: WatchFolders, client: "redis.Redis", folder: Path) -> None:
    old = folder.parent / "old.jpg"
    old.write_bytes(b"complete long ago")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    with watch(folder):
        wait_for_queued(client, FIRST)
        old.rename(folder / "moved.jpg")
        wait_for_queued(client, FIRST, "moved.jpg")


def test_a_file_that_is_renamed_when_it_is_complete_is_queued_once(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    with watch(folder):
        wait_for_queued(client, FIRST)
        (folder / "a.jpg.part").write_bytes(b"complete")
        (folder / "a.jpg.part").rename(folder / "a.jpg")
        wait_for_queued(client, FIRST, "a.jpg")


def test_folders_that_appear_are_followed_and_so_is_what_was_in_them(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    make_files(folder.parent / "made" / "before" / "deep", 2)
    with watch(folder):
        wait_for_queued(client, FIRST)
        (folder / "at" / "once").mkdir(parents=True)
        (folder / "at" / "once" / "a.jpg").write_bytes(b"1")
        (folder.parent / "made").rename(folder / "made")
        (folder / "made" / "before" / "deep" / "00000.jpg").rename(folder / "made" / "before" / "b.jpg")
        wait_for_queued(client, FIRST, "a.jpg", "b.jpg", "00001.jpg")
        (folder / "made" / "before" / "deep" / "later.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg", "b.jpg", "00001.jpg", "later.jpg")


def test_a_thousand_files_at_once_are_queued_once_each(
    watch: WatchFolders, client: "redis.Redis", make_producer: Callable[..., Producer], folder: Path
) -> None:
    with watch(folder, by=make_producer(job_size=100), pace=LISTING) as watched:
        wait_for_queued(client, FIRST)
        make_files(folder / "many", 1000)
        wait_for(lambda: watched.watch.tally.sent >= 1001, "all of them")
        watched.wait_for_rounds(1)
    names = Counter(ref.uri for message in messages(client) for ref in job_in(message).images)
    assert set(names.values()) == {1}
    assert len(names) == 1001


def test_hidden_files_and_folders_are_passed_over(watch: WatchFolders, client: "redis.Redis", folder: Path) -> None:
    make_files(folder / ".cache", 2)
    with watch(folder):
        wait_for_queued(client, FIRST)
        (folder / ".hidden.jpg").write_bytes(b"1")
        (folder / ".cache" / "a.jpg").write_bytes(b"1")
        make_files(folder / ".new" / "deep", 2)
        (folder / ".moved.jpg").write_bytes(b"1")
        (folder / ".moved.jpg").rename(folder / "seen.jpg")
        wait_for_queued(client, FIRST, "seen.jpg")
        (folder / ".new" / "deep" / "b.jpg").write_bytes(b"1")
        (folder / "last.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "seen.jpg", "last.jpg")


def test_globs_mean_for_what_appears_what_they_mean_for_what_is_there(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    make_files(folder / "in", 1)
    selection = Selection(include=("in/*.jpg", "*.raw"), exclude=("*thumb*",), max_bytes=50)
    with watch(folder, selection=selection):
        wait_for_queued(client, FIRST)
        for name in ("out.jpg", "in/thumb.jpg", "in/a.jpg", "b.raw", "in/new/c.jpg"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"1")
        (folder / "in" / "large.jpg").write_bytes(b"1" * 51)
        wait_for_queued(client, FIRST, "a.jpg", "b.raw", "c.jpg")


def test_a_file_that_vanishes_is_counted_and_never_listed(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    with watch(folder, pace=Pace(settle=1.0, max_wait=0.2)) as watched:
        wait_for_queued(client, FIRST)
        (folder / "short.jpg").write_bytes(b"1")
        wait_for(lambda: len(watched.watch.settling), "the file")
        (folder / "short.jpg").unlink()
        wait_for(lambda: watched.watch.settling.vanished, "its end")
    assert watched.watch.tally.listed == 1
    assert watched.watch.settling.vanished == 1


@pytest.mark.parametrize("depth", ["the folder itself", "a folder below"])
def test_a_folder_that_is_deleted_and_made_anew_is_watched_again(
    depth: str, watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    (folder / "below").mkdir()
    anew = folder / "below" if depth == "a folder below" else folder
    with watch(folder):
        wait_for_queued(client, FIRST)
        shutil.rmtree(anew)
        anew.mkdir()
        (anew / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg")
        (anew / "b.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg", "b.jpg")


def test_a_folder_that_is_away_for_a_while_is_said_once_and_found_again(
    watch: WatchFolders, client: "redis.Redis", folder: Path, tmp_path: Path
) -> None:
    other = make_files(tmp_path / "other", 0)
    with watch(folder, other, pace=LISTING) as watched:
        wait_for_queued(client, FIRST)
        folder.rename(tmp_path / "elsewhere")
        wait_for(lambda: watched.said, "a note")
        watched.wait_for_rounds(2)
        (other / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg")
        (tmp_path / "elsewhere").rename(folder)
        (folder / "b.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg", "b.jpg")
        wait_for(lambda: len(watched.said) == 2, "another note")
    assert str(folder) in watched.said[0]
    assert "can be listed again" in watched.said[1]


def test_full_listings_find_what_the_kernel_does_not_report(
    watch: WatchFolders, client: "redis.Redis", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(arrivals, "watch", refuse)
    with watch(folder, pace=LISTING) as watched:
        wait_for_queued(client, FIRST)
        (folder / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg")
    assert [line for line in watched.said if "OS file watch limit reached" in line] == watched.said
    assert len(watched.said) == 1


def test_folders_that_may_not_be_read_do_not_keep_the_kernel_from_reporting_of_others(
    watch: WatchFolders, client: "redis.Redis", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who may read everything."""
    follow = arrivals.watch

    def refuse(*folders: Any, ignore_permission_denied: bool, **options: Any) -> Any:
        if not ignore_permission_denied:
            raise PermissionError("Permission denied")
        return follow(*folders, ignore_permission_denied=True, **options)

    monkeypatch.setattr(arrivals, "watch", refuse)
    with watch(folder) as watched:
        wait_for_queued(client, FIRST)
        (folder / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg")
    assert watched.said == []


def test_names_that_are_no_utf8_or_mean_harm_are_queued_as_well(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    bad = [b"caf\xe9.jpg", *(os.fsencode(name.replace("/", "_")) for name in HOSTILE)]
    with watch(folder) as watched:
        wait_for_queued(client, FIRST)
        for name in bad:
            (folder / os.fsdecode(name)).write_bytes(b"1")
        wait_for(lambda: watched.watch.tally.sent == len(bad) + 1, "all of them")
        (folder / "later.jpg").write_bytes(b"1")
        wait_for(lambda: "later.jpg" in queued(client), "a later one")
    assert len(watched.said) == 1
    assert "full listings" in watched.said[0]


def test_links_and_their_folders_are_followed(watch: WatchFolders, client: "redis.Redis", folder: Path) -> None:
    outside = make_files(folder.parent / "outside", 0)
    (folder.parent / "link").symlink_to(folder)
    (folder / "nowhere.jpg").symlink_to("nothing")
    with watch(folder.parent / "link") as watched:
        wait_for_queued(client, FIRST)
        (folder / "a.jpg").write_bytes(b"1")
        (outside / "b.jpg").write_bytes(b"1")
        (folder / "out").symlink_to(outside)
        (folder / "round").symlink_to(folder)
        wait_for_queued(client, FIRST, "a.jpg", "b.jpg")
    assert watched.watch.tally.listed == 3


def test_two_watched_folders_of_which_one_is_in_the_other_queue_each_image_once(
    watch: WatchFolders, client: "redis.Redis", folder: Path
) -> None:
    inner = make_files(folder / "inner", 0)
    with watch(folder, inner, folder):
        wait_for_queued(client, FIRST)
        (inner / "a.jpg").write_bytes(b"1")
        wait_for_queued(client, FIRST, "a.jpg")


def test_what_is_too_much_to_report_or_to_remember_is_found_by_full_listings(
    watch: WatchFolders, client: "redis.Redis", folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOST_REPORTED", 5)
    monkeypatch.setattr(arrivals, "PIECE_SIZE", 3)
    monkeypatch.setattr(watching, "PIECE_SIZE", 3)
    monkeypatch.setattr(watching, "MOST_SETTLING", 7)
    monkeypatch.setattr(watching, "MOST_NEW_FOLDERS", 1)
    with watch(folder, pace=LISTING) as watched:
        wait_for_queued(client, FIRST)
        for name in ("a", "b", "c"):
            for path in make_files(folder / name, 20).iterdir():
                path.rename(path.with_stem(name + path.stem))
        wait_for(lambda: len(queued(client)) == 61, "all of them")
        assert len(watched.watch.settling) <= 7
    assert set(queued(client).values()) == {1}


def test_a_bucket_is_listed_now_and_then(
    watch: WatchFolders, client: "redis.Redis", producer: Producer, bucket: Bucket, folder: Path
) -> None:
    for name in ("in/a.jpg", "in/b.jpg", "in/notes.txt", "other.jpg"):
        bucket.put(name)
    with watch(f"{bucket.uri}/in", f"{bucket.uri}/empty", folder, pace=LISTING) as watched:
        wait_for_queued(client, "a.jpg", "b.jpg", FIRST)
        assert len(work(producer, client)) == 3
        bucket.put("in/b.jpg", b"something else")
        bucket.put("in/deep/c.jpg")
        bucket.put("empty/d.jpg")
        wait_for_queued(client, "b.jpg", "c.jpg", "d.jpg")
        watched.wait_for_rounds(1)
        assert work(producer, client) == ["b.jpg", "c.jpg", "d.jpg"]
        bucket.put("in/b.jpg")  # the first content again
        wait_for_queued(client, "b.jpg")
    assert watched.watch.tally.ignored == 1
