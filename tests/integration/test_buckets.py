"""Objects in buckets, on real servers: what is listed, what is read, and what is said of mistakes."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from core import buckets
from core.buckets import BUFFER_BYTES, BucketListing, open_object, read_object
from core.errors import ImageError, SourceError, StorageError
from core.images import ImageRef
from core.selection import Selection
from core.storage import Reader
from core.verdicts import Status
from tests.buckets import MANY, MANY_OBJECTS, ODD, ODD_KEY, ODD_OBJECTS, Bucket, Storage
from tests.faulty_proxy import Fault, FaultyProxy

NAMES = (
    "a.jpg",
    "b c.jpg",
    "ä é😀.jpg",
    "100%.jpg",
    "%2e%2e.jpg",
    "#1.jpg",
    "?x=1&y.jpg",
    "'\"<script>.jpg",
    "a+b=c~.jpg",
)
SERVERS = ("moto", "google", "s3rver", "azurite")
LIMIT = 10**6


@pytest.fixture(params=SERVERS)
def any_bucket(request: pytest.FixtureRequest, make_bucket: Callable[..., Bucket]) -> Bucket:
    """A bucket on each kind of server that is installed."""
    return make_bucket(request.getfixturevalue(request.param))


def listed(source: str, **selection: object) -> dict[str, ImageRef]:
    return {ref.uri.removeprefix(source).lstrip("/"): ref for ref in BucketListing(source, Selection(**selection))}


def test_objects_are_listed_below_a_prefix_and_read_whole(any_bucket: Bucket) -> None:
    for number, name in enumerate(NAMES):
        any_bucket.put(f"photos/deep/{name}", bytes([number]) * (number + 10))
    any_bucket.put("photos.jpg")
    any_bucket.put("photographs/x.jpg")

    found = listed(f"{any_bucket.uri}/photos")

    assert found.keys() == {f"deep/{name}" for name in NAMES}
    for number, name in enumerate(NAMES):
        ref = found[f"deep/{name}"]
        assert ref.size_bytes == number + 10
        assert ref.fingerprint.endswith(f"-{number + 10}")
        with Reader(roots=(any_bucket.uri,), max_bytes=LIMIT) as reader:
            assert reader.read(ref) == bytes([number]) * (number + 10)


def test_a_changed_object_has_another_fingerprint_and_an_opened_one_the_same(any_bucket: Bucket) -> None:
    uri = any_bucket.put("a.jpg", b"one")
    (first,) = listed(any_bucket.uri).values()
    opened, fingerprint = open_object(uri)
    assert fingerprint == first.fingerprint
    assert opened.read() == b"one"

    any_bucket.put("a.jpg", b"two")
    (second,) = listed(any_bucket.uri).values()
    assert second.fingerprint != first.fingerprint


def test_an_object_that_is_named_is_listed_alone_whatever_its_name(any_bucket: Bucket) -> None:
    any_bucket.put("photos/a.jpg/b.jpg")
    uri = any_bucket.put("photos/notes", b"no picture")

    alone = BucketListing(uri, Selection(include=["*.jpg"]))
    assert not alone.is_folder
    assert [(ref.uri, ref.size_bytes) for ref in alone] == [(uri, 10)]
    folder = BucketListing(f"{any_bucket.uri}/photos/a.jpg/", Selection())
    assert folder.is_folder
    assert [ref.uri for ref in folder] == [f"{any_bucket.uri}/photos/a.jpg/b.jpg"]


def test_what_does_not_exist_is_a_source_error_or_an_empty_listing(any_bucket: Bucket) -> None:
    assert listed(f"{any_bucket.uri}/nothing") == {}
    with pytest.raises(SourceError, match=r"there is no such bucket; see (AWS|GOOGLE|AZURE)_"):
        BucketListing(f"{any_bucket.uri}-not/photos", Selection())
    with pytest.raises(ImageError, match="the object is gone") as caught:
        read_object(f"{any_bucket.uri}/nothing.jpg", max_bytes=LIMIT)
    assert caught.value.status is Status.NOT_FOUND
    with pytest.raises(ImageError, match="the object is gone"):
        open_object(f"{any_bucket.uri}/nothing.tar")


def test_a_selection_is_by_names_below_the_source_sizes_and_times(bucket: Bucket) -> None:
    for key, size in (
        ("in/a.jpg", 10),
        ("in/b.png", 20),
        ("in/raw/c.jpg", 30),
        ("in/shards.tar", 40),
        ("in/notes", 50),
    ):
        bucket.put(key, b"x" * size)
    source = f"{bucket.uri}/in"
    now = next(iter(BucketListing(source, Selection())))

    assert listed(source).keys() == {"a.jpg", "b.png", "raw/c.jpg"}
    assert listed(source, exclude=["raw/*"]).keys() == {"a.jpg", "b.png"}
    assert listed(source, min_bytes=15, max_bytes=25).keys() == {"b.png"}
    assert listed(source, include=["*"]).keys() == {"a.jpg", "b.png", "raw/c.jpg", "shards.tar", "notes"}
    assert listed(source, older_than=1e9) == {}
    assert len(listed(source, newer_than=1e9)) == 3
    assert listed(source, sample=1e-9) == {}
    assert now.size_bytes == 10
    listing = BucketListing(source, Selection())
    assert len(list(listing)) == 3
    assert listing.ignored == 2
    assert listing.unlistable == []


def test_keys_that_only_mark_a_folder_are_no_images(bucket: Bucket) -> None:
    bucket.put("in/", b"")
    bucket.put("in/deep/", b"")
    bucket.put("in/deep/a.jpg")
    bucket.put("in/empty.jpg", b"")

    assert listed(f"{bucket.uri}/in", include=["*"]).keys() == {"deep/a.jpg", "empty.jpg"}
    assert listed(f"{bucket.uri}/in/").keys() == {"deep/a.jpg", "empty.jpg"}


def test_keys_that_cannot_be_read_are_told_and_hide_no_others_behind_them(bucket: Bucket) -> None:
    for key in ("in/.first.jpg", "in//a.jpg", "in//b.jpg", "in/../c.jpg", "in/z/./d.jpg", "in/z/e\x01f.jpg"):
        bucket.put(key)
    for number in range(5):
        bucket.put(f"in/{number}.jpg")
        bucket.put(f"in/z/f{number}.jpg")
    bucket.put("in/x.tar#y.jpg")

    listing = BucketListing(f"{bucket.uri}/in", Selection())
    found = [ref.uri.removeprefix(f"{bucket.uri}/in/") for ref in listing]

    assert found == sorted(set(found))  # none twice
    assert {f"z/f{number}.jpg" for number in range(5)} <= set(found)
    lines = "\n".join(listing.unlistable)
    for key in ("in//a.jpg", "in/../c.jpg", "in/z/./d.jpg", "in/z/e\x01f.jpg"):
        assert f"{bucket.uri}/{key}: a key with '//'" in lines
    # Whatever is not listed lies in a range that is named: the first answer holds all keys.
    assert "keys between '' and 'in/..0' were not listed" in lines
    assert "keys between 'in/..0' and 'in/0' were not listed" in lines


def test_a_key_that_cannot_be_read_hides_no_more_than_the_answer_that_it_is_in(
    moto: Storage, make_bucket: Callable[..., Bucket]
) -> None:
    make_bucket(moto)
    listing = BucketListing(f"s3://{ODD}", Selection())

    names = [ref.uri.removeprefix(f"s3://{ODD}/") for ref in listing]

    assert names == [f"{number:05}.jpg" for number in range(ODD_OBJECTS) if not 1000 <= number <= 1500]
    (line,) = listing.unlistable
    assert line.startswith(f"s3://{ODD}/{ODD_KEY}: ")
    assert line.endswith("keys between '00999.jpg' and '01500/..0' were not listed either")


def test_a_bucket_full_of_keys_that_cannot_be_read_is_left(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_REFUSED", 2)
    for letter in "abcd":
        bucket.put(f"{letter}//x.jpg")
    bucket.put("e.jpg")

    with pytest.raises(SourceError, match=f"a key with '//'.* nothing was listed after {bucket.uri}/b/0$"):
        BucketListing(bucket.uri, Selection())


def test_a_key_that_looks_like_a_member_of_an_archive_is_told(bucket: Bucket) -> None:
    bucket.put("a.jpg")
    uri = bucket.put("x.tar#y.jpg")

    listing = BucketListing(bucket.uri, Selection())

    assert [ref.uri for ref in listing] == [f"{bucket.uri}/a.jpg"]
    assert listing.unlistable == [f"{uri}: its name is that of a member of an archive"]
    with pytest.raises(SourceError, match="names no bucket"):
        BucketListing(uri, Selection())


def test_ten_thousand_objects_come_by_ten_requests(
    proxy: FaultyProxy, moto: Storage, make_bucket: Callable[..., Bucket]
) -> None:
    make_bucket(moto, proxy.url)
    proxy.forget()
    listing = iter(BucketListing(f"s3://{MANY}", Selection()))
    next(listing)
    assert proxy.counts.total() <= 2  # the first image is there before the rest is asked for
    rest = [ref.uri for ref in listing]

    assert len(set(rest)) == MANY_OBJECTS - 1
    assert proxy.counts.total() == MANY_OBJECTS / 1000


def test_a_large_object_is_refused_before_its_bytes_come(far_bucket: Bucket, proxy: FaultyProxy) -> None:
    uri = far_bucket.put("large.jpg", b"x" * 5_000_000)
    proxy.forget()
    proxy.schedule = lambda method, path, before: Fault(keeps=0.001)  # reading the body would fail

    with pytest.raises(ImageError, match=r"^5000000 bytes, the limit is 1000000$") as caught:
        read_object(uri, max_bytes=LIMIT)

    assert caught.value.status is Status.TOO_LARGE
    assert proxy.counts.total() == 1


def test_archives_and_lines_are_read_through_an_opened_object(any_bucket: Bucket, tmp_path: Path) -> None:
    table = pa.table({"image": [bytes([number]) * 1000 for number in range(50)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    tar, packed = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive, zipfile.ZipFile(packed, "w") as other:
        for number in range(50):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = 1000
            archive.addfile(member, io.BytesIO(bytes([number]) * 1000))
            other.writestr(f"{number}.jpg", bytes([number]) * 1000)
    lines = "\n".join(f"s3://b/ü{number}.jpg" for number in range(1000))

    with open_object(any_bucket.put("a.tar", tar.getvalue()))[0] as file, tarfile.open(fileobj=file) as archive:
        assert [archive.extractfile(member).read()[:1] for member in archive] == [bytes([n]) for n in range(50)]
    with open_object(any_bucket.put("a.zip", packed.getvalue()))[0] as file, zipfile.ZipFile(file) as other:
        assert other.read("33.jpg") == bytes([33]) * 1000
    with open_object(any_bucket.put("a.parquet", (tmp_path / "a.parquet").read_bytes()))[0] as file:
        assert parquet.ParquetFile(file).read_row_group(3).to_pydict() == table.slice(30, 10).to_pydict()
    with open_object(any_bucket.put("a.txt", lines.encode()))[0] as file:
        assert [line.rstrip("\n") for line in io.TextIOWrapper(file, "utf-8")] == lines.split("\n")
    with (
        open_object(any_bucket.put("a.txt.gz", gzip.compress(lines.encode())))[0] as file,
        gzip.open(file, "rt") as text,
    ):
        assert text.read() == lines


def test_an_opened_object_is_asked_for_in_large_parts_and_only_where_it_is_read(
    far_bucket: Bucket, proxy: FaultyProxy
) -> None:
    content = bytes(range(256)) * (3 * BUFFER_BYTES // 256) + b"the end"
    uri = far_bucket.put("large.bin", content)
    proxy.forget()
    file, _ = open_object(uri)

    assert file.read(10) == content[:10]
    assert file.seek(1000) == 1000
    assert file.read(10) == content[1000:1010]
    assert proxy.counts.total() == 2  # one that asks for the size
    file.seek(-7, io.SEEK_END)
    assert (file.read(), file.read(), file.tell()) == (b"the end", b"", len(content))
    assert proxy.counts.total() == 3
    file.seek(len(content) + 5)
    assert file.read(1) == b""
    file.seek(0)
    assert file.read() == content
    assert proxy.counts.total() <= 5
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)


def test_an_object_that_changes_while_it_is_read_is_not_mixed_with_its_successor(bucket: Bucket) -> None:
    uri = bucket.put("large.bin", b"a" * (BUFFER_BYTES + 10))
    file, _ = open_object(uri)
    assert file.read(1) == b"a"
    bucket.put("large.bin", b"b" * (BUFFER_BYTES + 10))

    file.seek(BUFFER_BYTES + 5)
    with pytest.raises(StorageError, match=r"^the object was changed while it was read$"):
        file.read(1)
