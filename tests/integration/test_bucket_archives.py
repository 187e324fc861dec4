"""Archives in buckets, on a real server behind a proxy: read in their order by few requests, in spite of faults."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from core import buckets
from core.archives import ARCHIVES, ArchiveListing, ShardListing
from core.bucket_client import RETRIES
from core.buckets import BUFFER_BYTES, BucketListing
from core.errors import ImageError, SourceError, StorageError
from core.images import ImageRef
from core.settings import load_settings
from core.storage import Reader
from core.uris import member_uri, split_member
from tests.archived import EVERYTHING, in_each_kind, listed, write_table, write_tar
from tests.buckets import Bucket
from tests.faulty_proxy import ERROR_500, RESET, TRUNCATED, FaultyProxy, seeded
from worker.reading import ReadAhead

KINDS = ["tar", "zip", "parquet"]
_chance = Random(1)
CONTENTS = [_chance.randbytes(_chance.randint(20_000, 60_000)) for _ in range(500)]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=20), "base": 2}
    monkeypatch.setitem(RETRIES, "backoff", backoff)
    monkeypatch.setattr(buckets, "PAUSE_SECONDS", 0.01)


@pytest.fixture(params=KINDS)
def shard(request: pytest.FixtureRequest, far_bucket: Bucket, tmp_path: Path) -> str:
    """An archive with ``CONTENTS``, of each kind, of five times what one request brings."""
    path = in_each_kind(tmp_path, CONTENTS)[request.param]
    if request.param == "parquet":
        write_table(path, CONTENTS, group=125)
    return far_bucket.put(f"shards/{path.name}", path.read_bytes())


def read_jobs(refs: list[ImageRef], size: int = 125) -> list[bytes]:
    """Read images as a worker does, job by job."""
    ahead, found = ReadAhead(load_settings()), []
    for start in range(0, len(refs), size):
        job = refs[start : start + size]
        with ahead.job(job), ThreadPoolExecutor(4) as pool:
            found += pool.map(ahead.read, job)
    return found


def test_a_shard_is_listed_and_read_by_few_requests(shard: str, proxy: FaultyProxy) -> None:
    proxy.forget()
    refs = listed(shard)
    assert proxy.counts.total() <= sum(map(len, CONTENTS)) / BUFFER_BYTES + 4
    proxy.forget()
    assert read_jobs(refs) == CONTENTS
    # Each of four jobs opens it, looks for its end, and reads on from where the one before it stopped.
    assert proxy.counts.total() <= sum(map(len, CONTENTS)) / BUFFER_BYTES + 4 * 5


def test_every_member_is_read_in_spite_of_faults(shard: str, proxy: FaultyProxy) -> None:
    refs = listed(shard)
    proxy.schedule = seeded(2, {ERROR_500: 0.15, RESET: 0.1, TRUNCATED: 0.1})
    assert read_jobs(refs, size=50) == CONTENTS
    assert len(proxy.faults) > 1


def test_a_shard_that_is_replaced_while_it_is_read_gives_no_bytes_of_the_new_one(
    far_bucket: Bucket, tmp_path: Path
) -> None:
    old, new = ({f"{number}.jpg": bytes([shade]) * 50_000 for number in range(200)} for shade in (1, 2))
    uri = far_bucket.put("a.tar", write_tar(tmp_path / "a.tar", old).read_bytes())
    refs = listed(uri)
    with Reader(roots=("s3://",), max_bytes=10**6) as reader:
        assert reader.read(refs[0]) == old["0.jpg"]
        far_bucket.put("a.tar", write_tar(tmp_path / "a.tar", new).read_bytes())
        with pytest.raises(StorageError):
            reader.read(refs[-1])


def test_a_bucket_of_shards_is_listed_as_one_source(far_bucket: Bucket, tmp_path: Path) -> None:
    for path in in_each_kind(tmp_path, CONTENTS[:3]).values():
        far_bucket.put(f"shards/{path.name}", path.read_bytes())
    far_bucket.put("shards/broken.zip", b"PK")
    far_bucket.put("shards/beside.jpg")
    listing = ShardListing(BucketListing(f"{far_bucket.uri}/shards", ARCHIVES), EVERYTHING)
    assert read_jobs(list(listing)) == [*CONTENTS[:3]] * 3
    assert listing.ignored == 1
    assert "broken.zip" in listing.unlistable[0]


def test_an_archive_that_is_gone_or_outside_the_roots_is_an_error(far_bucket: Bucket, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="gone"):
        ArchiveListing(f"{far_bucket.uri}/a.tar", EVERYTHING)
    uri = far_bucket.put("a.tar", write_tar(tmp_path / "a.tar", {"1.jpg": b"1"}).read_bytes())
    with Reader(roots=("s3://other",), max_bytes=10) as reader, pytest.raises(ImageError, match="roots"):
        reader.read(ImageRef(member_uri(uri, "1.jpg"), "", 0))
    assert split_member(listed(uri)[0].uri) == (uri, "1.jpg")
