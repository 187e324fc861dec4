"""From lists to the queue, and the books of it: nothing is lost, whatever the lists hold."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import redis
from pyarrow import parquet

from core.broker import queue_name
from core.buckets import BucketListing
from core.errors import SourceError
from core.selection import Selection
from core.uris import path_to_uri
from producer.enqueue import LOOKUP_SIZE, Tally, Target
from producer.scan import Scan
from producer.summary import summarise
from tests.buckets import Bucket, Storage
from tests.faulty_proxy import FORBIDDEN, NO_FAULT, FaultyProxy
from tests.integration.commands import HOSTILE, Site
from tests.integration.producing import MODEL, WAIT_SECONDS, Producer, job_in, messages, work
from tests.site import Site as WebSite
from tests.site import page, running


@pytest.fixture
def site(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An installation with a running broker and an SQLite file of its own."""
    monkeypatch.setenv("FACESIEVE_BROKER_URL", broker)
    monkeypatch.setenv("FACESIEVE_MODEL", MODEL)
    return Site(tmp_path)


def names(number: int, bucket: str = "faces") -> list[str]:
    """Return URIs that nobody looks at."""
    return [f"s3://{bucket}/{index:06}.jpg" for index in range(number)]


def write_list(path: Path, lines: list[str]) -> Path:
    """Write a plain list, compressed if it is called so."""
    content = "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def queued(client: "redis.Redis") -> list[list[str]]:
    """Return the images of each job in the order of the queue."""
    return [[ref.uri for ref in job_in(message).images] for message in messages(client)]


@contextmanager
def enqueuing(site: Site, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `producer enqueue - --json` with an open pipe on its standard input."""
    command = [sys.executable, "-m", "producer", "enqueue", "-", "--json", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=site.folder, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(is_so: Callable[[], Any]) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("kind", [".txt", ".txt.gz"])
def test_all_that_a_list_names_is_sent_in_its_order_and_the_books_balance(
    kind: str, producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    tally = producer.enqueue(write_list(tmp_path / f"list{kind}", names(10)))
    assert queued(client) == [names(10)[:4], names(10)[4:8], names(10)[8:]]
    work(producer, client)
    ledger = producer.ledger(tally)
    assert (ledger.scan_status, ledger.listed, ledger.ok, ledger.unlistable) == ("listed", 10, 10, 0)


def test_a_file_on_a_list_that_is_gone_is_sent_for_the_worker_to_say_so(
    producer: Producer, client: "redis.Redis", faces: Path, tmp_path: Path
) -> None:
    tally = producer.enqueue(write_list(tmp_path / "list.txt", ["faces/00000.jpg", "faces/gone.jpg"]))
    work(producer, client, bad=["gone.jpg"])
    ledger = producer.ledger(tally)
    assert (ledger.ok, ledger.failed) == (1, {"truncated": 1})


def test_the_same_files_by_a_folder_and_by_a_list_are_scored_once(
    producer: Producer, client: "redis.Redis", faces: Path, tmp_path: Path
) -> None:
    tally = producer.enqueue(
        faces, write_list(tmp_path / "list.txt", [f"faces/{path.name}" for path in faces.iterdir()])
    )
    assert (tally.listed, tally.skipped, tally.sent) == (20, 10, 10)
    work(producer, client)
    assert producer.enqueue(tmp_path / "list.txt").sent == 0


def test_what_is_remote_is_scored_once_unless_its_fingerprint_changes_or_by_force(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    path = tmp_path / "list.csv"

    def enqueue(first: str, second: str, **options: Any) -> int:
        path.write_text(f"uri,fingerprint\ns3://faces/1.jpg,{first}\ns3://faces/2.jpg,{second}\n")
        tally = producer.enqueue(path, **options)
        work(producer, client)
        return tally.sent

    assert enqueue("", "x") == 2
    assert enqueue("", "x") == 0
    assert enqueue("", "y") == 1
    assert enqueue("", "") == 0  # whatever was scored, it counts
    assert enqueue("z", "") == 1
    assert enqueue("", "") == 0
    assert enqueue("", "", skip="none") == 2


def test_a_member_of_an_archive_is_scored_once_by_the_archive_and_by_lists(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("1.jpg", "2.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    first, second = (write_list(tmp_path / f"{number}.txt", [f"s.tar#{number}.jpg"]) for number in (1, 2))
    assert producer.enqueue(first).sent == 1
    work(producer, client)
    assert producer.enqueue(first).sent == 0
    assert producer.enqueue(tmp_path / "s.tar").sent == 2  # now it is known where they begin
    work(producer, client)
    for source in (tmp_path / "s.tar", first, second):
        assert producer.enqueue(source).sent == 0
    os.utime(tmp_path / "s.tar", (1, 1))
    for source in (first, second):
        assert producer.enqueue(source).sent == 1


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_list_in_a_bucket_names_what_is_beside_it_as_listing_the_bucket_would(
    kind: str, producer: Producer, client: "redis.Redis", bucket: Bucket
) -> None:
    for number in range(3):
        bucket.put(f"2024/{number}.jpg", b"pixels" * number)
    producer.enqueue(f"{bucket.uri}/2024")
    work(producer, client)
    refs = sorted(BucketListing(bucket.uri, Selection()), key=lambda ref: ref.uri)
    rows = [(f"{number}.jpg", ref.fingerprint.partition("-")[0], ref.size_bytes) for number, ref in enumerate(refs)]
    if kind == "parquet":
        content = io.BytesIO()
        columns = dict(zip(("file", "etag", "size"), zip(*rows, strict=True), strict=True))
        parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), content)
        source = bucket.put("2024/list.parquet", content.getvalue())
    else:
        text = "file,etag,size\n" + "".join(f'{name},"""{tag}""",{size}\n' for name, tag, size in rows)
        source = bucket.put(
            f"2024/list.{kind}", gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode()
        )
    assert list(Scan([source])) == refs
    tally = producer.enqueue(source)
    assert (tally.listed, tally.skipped, tally.sent) == (3, 3, 0)


def test_a_list_in_a_bucket_that_cannot_be_read_any_further_is_told(
    make_bucket: Callable[..., Bucket], moto: Storage, proxy: FaultyProxy
) -> None:
    bucket = make_bucket(moto, proxy.url)
    lines = [f"{index:040}.jpg" for index in range(150_000)]
    source = bucket.put("list.txt", "\n".join(lines).encode())
    proxy.schedule = lambda method, _, before: FORBIDDEN if method == "GET" and before else NO_FAULT
    scan = Scan([source])
    images = [ref.uri for ref in scan]
    assert 1000 < len(images) < len(lines)
    assert images == [f"{bucket.uri}/{line}" for line in lines[: len(images)]]
    (reason,) = scan.unlistable
    assert reason.startswith(f"{source} line {len(images) + 1} and all that follow: the storage answered 403")


def test_a_list_on_the_web_names_what_is_beside_it() -> None:
    with running(WebSite()) as web:
        web.pages["/x/list.txt"] = page(b"a.jpg\ny/b.jpg\ns3://faces/c.jpg\n")
        assert [ref.uri for ref in Scan([f"{web.origin}/x/list.txt"])] == [
            f"{web.origin}/x/a.jpg", f"{web.origin}/x/y/b.jpg", "s3://faces/c.jpg"
        ]  # fmt: skip
        with pytest.raises(SourceError, match="cannot be listed: the server has no such page"):
            Scan([f"{web.origin}/x/gone.txt"])


def test_a_name_that_stands_twice_within_a_look_up_is_sent_once(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    tally = producer.enqueue(write_list(tmp_path / "list.txt", names(10) * 3))
    assert (tally.listed, tally.skipped, tally.sent) == (30, 20, 10)
    work(producer, client)
    assert producer.ledger(tally).ok == 10


@pytest.mark.parametrize("job_size", [500, 10_000], ids=["jobs-with-an-image-in-common", "one-job-with-it-twice"])
def test_a_name_that_stands_twice_far_apart_is_sent_twice_and_the_books_balance(
    job_size: int, make_producer: Callable[..., Producer], client: "redis.Redis", tmp_path: Path
) -> None:
    producer = make_producer(job_size=job_size)
    unique = names(LOOKUP_SIZE)
    tally = producer.enqueue(write_list(tmp_path / "list.txt", unique + unique[:100]))
    assert (tally.listed, tally.skipped, tally.sent) == (LOOKUP_SIZE + 100, 0, LOOKUP_SIZE + 100)
    work(producer, client, bad=["000007.jpg"])
    ledger = producer.ledger(tally)
    assert (ledger.ok, ledger.failed) == (LOOKUP_SIZE + 98, {"truncated": 2})
    assert producer.enqueue(tmp_path / "list.txt").sent == 0


def test_hostile_lines_are_counted_or_sent_and_disturb_nothing_else(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    strange = [name for name in HOSTILE if "\n" not in name]
    too_long = ["/" + "x" * 20_000, "y" * 3_000_000]
    wrong = ["ftp://x/a.jpg", "s3://b/", "s3://b/../a.jpg", "x\0.jpg", "a.zip", ".", *too_long]
    lines = [*strange, "caf\udce9.jpg", *wrong, *names(2)]
    tally = producer.enqueue(write_list(tmp_path / "list.txt", lines))
    local = [path_to_uri(os.path.normpath(tmp_path / name)) for name in [*strange, "caf\udce9.jpg"]]
    assert [uri for job in queued(client) for uri in job] == [*local, *names(2)]
    work(producer, client)
    ledger = producer.ledger(tally)
    assert (ledger.listed, ledger.unlistable) == (len(strange) + 3, len(wrong))
    assert len(tally.unlistable) == len(wrong)


def test_the_ledger_counts_more_lines_than_it_has_reasons_for(producer: Producer, tmp_path: Path) -> None:
    tally = producer.enqueue(write_list(tmp_path / "list.txt", [*names(1), *["ftp://x"] * 1000]))
    assert producer.ledger(tally).unlistable == 1000
    assert len(tally.unlistable) == 101


def test_a_list_that_breaks_off_is_told_and_what_was_read_is_sent(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    path = write_list(tmp_path / "list.txt.gz", [f"s3://faces/{index * 7919}.jpg" for index in range(10_000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    tally = producer.enqueue(path, tmp_path / "list.txt.gz")
    ledger = producer.ledger(tally)
    assert ledger.unlistable == 2
    assert ledger.queued > 1000


def test_a_sample_of_a_list_is_the_same_images_each_time(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    path = write_list(tmp_path / "list.txt", names(3000))
    tally = producer.enqueue(path, selection=Selection(sample=0.1))
    assert 200 < tally.sent < 400
    work(producer, client)
    assert producer.enqueue(path, selection=Selection(sample=0.1)).sent == 0
    assert producer.ledger(tally).ignored == 3000 - tally.sent


def enqueue_shuffled(producer: Producer, path: Path) -> Tally:
    target = Target(MODEL, None)
    tally = producer.enqueuer.start([str(path)], target)
    producer.enqueuer.enqueue(Scan([str(path)]), target, tally, lambda _: None, is_shuffled=True)
    return tally


@pytest.mark.parametrize("window", [0, 400, 65_536])
def test_jobs_in_random_order_have_each_image_once_within_a_window(
    window: int, producer: Producer, client: "redis.Redis", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.enqueue.SHUFFLED_IMAGES", window)
    uris = names(5001)
    tally = enqueue_shuffled(producer, write_list(tmp_path / "list.txt", uris))
    in_order = [uris[start : start + 4] for start in range(0, 5001, 4)]
    positions = [in_order.index(job) for job in queued(client)]
    assert sorted(positions) == list(range(len(in_order)))
    assert positions != sorted(positions)
    # A job is sent only once it was listed: no sooner than what is held and one look-up allow.
    most = (window + LOOKUP_SIZE) // 4 + 1
    assert all(position - turn <= most for turn, position in enumerate(positions))
    if window == 65_536:  # all of them: the first half has about as many of the second half as of its own
        half = len(positions) // 2
        assert half / 3 < sum(position < half for position in positions[:half]) < half * 2 / 3
    ledger = producer.ledger(tally)
    assert (ledger.listed, ledger.queued, ledger.scan_status) == (5001, 5001, "listed")


def test_a_cancelled_scan_sends_nothing_of_what_was_held_for_shuffling(
    producer: Producer, client: "redis.Redis", tmp_path: Path
) -> None:
    target = Target(MODEL, None)
    path = write_list(tmp_path / "list.txt", names(5000))
    tally = producer.enqueuer.start([str(path)], target)

    def cancel(tally: Tally) -> None:
        producer.enqueuer.cancel(tally.scan_id)

    producer.enqueuer.enqueue(Scan([str(path)]), target, tally, cancel, is_shuffled=True)
    assert queued(client) == []


def test_the_summary_of_a_list_counts_only_this_scan_and_that_of_a_folder_all(
    producer: Producer, client: "redis.Redis", faces: Path, tmp_path: Path
) -> None:
    producer.enqueue(faces)
    work(producer, client)
    path = write_list(tmp_path / "list.txt", ["faces/00000.jpg", *names(3)])
    tally = producer.enqueue(path)
    work(producer, client)
    of_list = summarise(producer.engine, tally.scan_id, Scan([str(path)]).prefixes)
    assert (of_list["listed"], of_list["skipped"], of_list["scored"]) == (4, 1, 3)
    assert (of_list["labels"], of_list["earlier_scans_counted"]) == ({"real": 3}, False)
    assert {row["uri"] for row in of_list["most_likely_generated"]} == set(names(3))
    of_folder = summarise(producer.engine, tally.scan_id, Scan([str(faces)]).prefixes)
    assert (of_folder["labels"], of_folder["earlier_scans_counted"]) == ({"real": 10}, True)


def test_lines_are_sent_while_the_pipe_stays_open(site: Site, client: "redis.Redis") -> None:
    with enqueuing(site) as process:
        assert process.stdin
        process.stdin.write("".join(f"{name}\n" for name in names(LOOKUP_SIZE)).encode())
        process.stdin.flush()
        wait_until(lambda: client.llen(queue_name(MODEL)) >= LOOKUP_SIZE // 256)
        out, _ = process.communicate(b"s3://faces/last.jpg\n", timeout=WAIT_SECONDS)
    assert process.returncode == 0
    assert json.loads(out) == {
        "scan": 1, "listed": LOOKUP_SIZE + 1, "skipped": 0, "sent": LOOKUP_SIZE + 1, "ignored": 0, "unlistable": []
    }  # fmt: skip


def test_what_a_program_finds_can_be_piped_in(site: Site, faces: Path, client: "redis.Redis") -> None:
    (faces / os.fsdecode(b"caf\xe9 \x1b[31m.jpg")).touch()
    found = subprocess.run(["find", "faces", "-type", "f"], cwd=site.folder, capture_output=True, check=True)
    with enqueuing(site) as process:
        out, error = process.communicate(found.stdout, timeout=WAIT_SECONDS)
    assert (process.returncode, error.decode().count("error")) == (0, 0)
    assert json.loads(out)["sent"] == 11
    uris = {uri for job in queued(client) for uri in job}
    assert f"file://{faces}/caf%E9%20%1B%5B31m.jpg" in uris


@pytest.mark.parametrize("content", [b"", b"\n\n# nothing\n"])
def test_an_empty_pipe_is_an_error(content: bytes, site: Site) -> None:
    with enqueuing(site) as process:
        _, error = process.communicate(content, timeout=WAIT_SECONDS)
    assert (process.returncode, error.decode()) == (4, "error: no images in -\n")


def test_a_list_without_the_column_ends_with_4(site: Site) -> None:
    (site.folder / "list.csv").write_text("place,\x1b[31m\na.jpg,1\n")
    line = site.error(4, "producer", "enqueue", "list.csv")
    assert "--column can choose among place, \\x1b[31m" in line


def test_options_choose_among_the_files_of_a_folder(site: Site, faces: Path) -> None:
    for index, path in enumerate(sorted(faces.iterdir())):
        path.write_bytes(b"x" * 1024 * (index + 1))
        os.utime(path, (1e9 + index, 1e9 + index))

    def listed(*words: str) -> int:
        return int(json.loads(site.ok("producer", "enqueue", "faces", "--dry-run", "--json", *words))["listed"])

    assert listed("--min-size", "3k") == 8
    assert listed("--min-size", "3k", "--max-size", "4k") == 2
    assert listed("--newer-than", "2001-09-09T01:46:45Z") == 5
    assert listed("--older-than", "2001-09-09T01:46:45Z") == 5
    assert listed("--older-than", "7d", "--sample", "1") == 10
    assert "10 files were passed over" in site.error(4, "producer", "enqueue", "faces", "--newer-than", "1h")


def test_wrong_lines_are_told_with_their_control_characters_escaped(site: Site) -> None:
    (site.folder / "li\x1b[31mst.txt").write_bytes(b"s3://b/a.jpg\nftp://x\n")
    out = site.ok("producer", "enqueue", "li\x1b[31mst.txt")
    assert "warning: cannot list li\\x1b[31mst.txt line 2: the schemes are s3, gs, az, https, http and file" in out
    assert "\x1b" not in out
    assert "1 folders or lines not listed" in site.run("db", "verify", "--complete").stdout
