"""What networks and overloaded servers do to reading and listing: nothing is lost, and nobody is asked for ever."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from core import bucket_client, buckets
from core.bucket_client import RETRIES, TRIES
from core.buckets import LISTING_TRIES, BucketListing, open_object, read_object
from core.errors import ImageError, SourceError, StorageError
from core.images import ImageRef
from core.selection import Selection
from core.settings import load_settings
from tests.buckets import MANY, MANY_OBJECTS, Bucket, Storage
from tests.faulty_proxy import (
    BUSY_503,
    ERROR_500,
    FORBIDDEN,
    LATE,
    NO_FAULT,
    RESET,
    TRUNCATED,
    Fault,
    FaultyProxy,
    seeded,
)
from worker.reading import ReadAhead

LIMIT = 10**6
#: Three in ten requests fail.
SHARES = {ERROR_500: 0.08, BUSY_503: 0.08, RESET: 0.07, TRUNCATED: 0.07, LATE: 0.05}
#: How often a worker tries an image, see `worker.reading`.
READ_TRIES = 4


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less between tries; how often they are made is what is tested."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setitem(RETRIES, "backoff", backoff)
    monkeypatch.setattr(buckets, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def many(proxy: FaultyProxy, moto: Storage, make_bucket: Callable[..., Bucket]) -> Iterator[str]:
    """A bucket of ten thousand objects behind the proxy."""
    make_bucket(moto, proxy.url)
    proxy.forget()
    return f"s3://{MANY}"


def always(fault: Fault, *, after: int = 0) -> Callable[[str, str, int], Fault]:
    return lambda method, path, before: fault if before >= after else NO_FAULT


def test_every_image_is_read_in_spite_of_faults(far_bucket: Bucket, proxy: FaultyProxy) -> None:
    contents = {far_bucket.put(f"{number:03}.jpg", bytes([number % 256]) * 3000): number for number in range(300)}
    missing = ImageRef(f"{far_bucket.uri}/none.jpg", "", 0)
    proxy.forget()
    proxy.schedule = seeded(1, SHARES)
    refs = [ImageRef(uri, "", 3000) for uri in contents]
    reading = ReadAhead(load_settings(roots=far_bucket.uri))

    with reading.job([*refs, missing]), ThreadPoolExecutor(4) as pool:
        read = dict(zip(contents, pool.map(reading.read, refs), strict=True))
        with pytest.raises(ImageError, match="the object is gone"):
            reading.read(missing)

    assert read == {uri: bytes([number % 256]) * 3000 for uri, number in contents.items()}
    assert set(SHARES) == set(proxy.faults)
    assert max(proxy.counts.values()) <= TRIES * READ_TRIES
    assert proxy.counts.total() < 2 * len(refs) + proxy.faults.total()
    assert 8 <= proxy.most_at_once <= load_settings().read_threads


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ERROR_500, "the storage answered 500 Internal Server Error"),
        (BUSY_503, "the storage answered 503 Service Unavailable (SlowDown)"),
        (RESET, "the connection to the storage broke"),
        (TRUNCATED, "the connection to the storage broke"),
    ],
)
def test_an_object_that_always_fails_is_asked_for_three_times(
    fault: Fault, reason: str, far_bucket: Bucket, proxy: FaultyProxy
) -> None:
    uri = far_bucket.put("a.jpg")
    proxy.forget()
    proxy.schedule = always(fault)

    with pytest.raises(StorageError) as caught:
        read_object(uri, max_bytes=LIMIT)

    assert str(caught.value) == reason
    assert proxy.counts.total() == TRIES == 3


def test_a_worker_asks_for_it_twelve_times_in_all(far_bucket: Bucket, proxy: FaultyProxy) -> None:
    uri = far_bucket.put("a.jpg")
    proxy.forget()
    proxy.schedule = always(BUSY_503)
    ref = ImageRef(uri, "", 6)
    reading = ReadAhead(load_settings())

    with reading.job([ref]), pytest.raises(StorageError, match="SlowDown"):
        reading.read(ref)

    assert proxy.counts.total() == TRIES * READ_TRIES == 12


def test_a_server_that_says_nothing_is_left(
    far_bucket: Bucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_client, "READ_SECONDS", 1)
    monkeypatch.setitem(RETRIES, "max_retries", 0)
    uri = far_bucket.put("a.jpg")
    proxy.schedule = always(Fault(wait_seconds=60))

    with pytest.raises(StorageError, match=r"^the storage did not answer in time$"):
        read_object(uri, max_bytes=LIMIT)


def test_a_server_that_is_not_there_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    with pytest.raises(StorageError, match=r"^the storage cannot be reached$"):
        read_object(f"{bucket.uri}/a.jpg", max_bytes=LIMIT)
    with pytest.raises(SourceError, match=r"the storage cannot be reached; see AWS_.* AWS_ENDPOINT_URL"):
        BucketListing(bucket.uri, Selection())


def test_a_bucket_of_another_region_is_told(far_bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.schedule = always(Fault(301))
    with pytest.raises(SourceError, match=r"the bucket is in another region; see .* AWS_REGION"):
        BucketListing(far_bucket.uri, Selection())


def test_an_opened_object_is_read_in_spite_of_faults_and_fails_in_a_few_words(
    far_bucket: Bucket, proxy: FaultyProxy
) -> None:
    uri = far_bucket.put("a.tar", b"x" * 5_000_000)
    proxy.schedule = seeded(5, SHARES)
    file, _ = open_object(uri)
    assert file.read(10) == b"x" * 10
    proxy.schedule = always(ERROR_500)
    file.seek(4_500_000)
    with pytest.raises(StorageError, match=r"^the storage answered 500 Internal Server Error$"):
        file.read(10)
    proxy.schedule = always(NO_FAULT)
    assert len(file.read()) == 500_000


@pytest.mark.parametrize("seed", range(2))
def test_a_listing_goes_on_after_faults_and_names_nothing_twice(seed: int, many: str, proxy: FaultyProxy) -> None:
    proxy.schedule = seeded(seed, {ERROR_500: 0.15, RESET: 0.15, TRUNCATED: 0.2})

    listing = BucketListing(many, Selection())
    names = [ref.uri for ref in listing]

    assert len(names) == len(set(names)) == MANY_OBJECTS
    assert listing.unlistable == []
    assert proxy.faults[TRUNCATED] >= 2


@pytest.mark.parametrize(
    ("fault", "tries"), [(ERROR_500, TRIES * LISTING_TRIES), (TRUNCATED, LISTING_TRIES), (FORBIDDEN, 1)]
)
def test_a_listing_that_breaks_off_says_so(fault: Fault, tries: int, many: str, proxy: FaultyProxy) -> None:
    proxy.schedule = always(fault, after=3)

    listing = BucketListing(many, Selection())
    names = [ref.uri for ref in listing]

    assert names == sorted(names)
    assert len(names) == 3000
    (line,) = listing.unlistable
    assert line.startswith(f"{many}: the ")
    assert "\n" not in line
    assert proxy.counts.total() == 3 + tries


def test_a_listing_that_never_begins_is_a_source_error(many: str, proxy: FaultyProxy) -> None:
    proxy.schedule = always(BUSY_503)
    with pytest.raises(
        SourceError, match=r"cannot be listed: the storage answered 503 Service Unavailable \(SlowDown\)"
    ):
        BucketListing(many, Selection())
    assert proxy.counts.total() == TRIES * LISTING_TRIES
