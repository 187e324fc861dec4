"""Archives of every kind as sources: what is listed, and that a member is what was put in."""

import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.archives import ARCHIVES, ArchiveListing, ShardListing
from core.errors import ImageError, SourceError
from core.files import FolderListing
from core.images import ImageRef
from core.jobs import Job
from core.selection import Selection
from core.storage import Reader, read_image
from core.uris import ANYWHERE, member_uri, split_member
from core.verdicts import Status
from producer.sources import open_source
from tests.archived import (
    EVERYTHING,
    MAX_BYTES,
    add_file,
    in_each_kind,
    listed,
    read_all,
    write_tar,
    write_zip,
)

KINDS = ["tar", "zip", "parquet"]
CONTENTS = [bytes([number]) * (number * 100) for number in range(1, 21)]
#: Of many files: long, absolute, with line breaks, quotes, percent signs, of no valid UTF-8.
NAMES = st.binary(min_size=1, max_size=300).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"").rstrip(b"/") or b"a"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300)


@pytest.fixture(params=KINDS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive with ``CONTENTS``, of each kind."""
    return in_each_kind(tmp_path, CONTENTS)[request.param]


def travelled(refs: Sequence[ImageRef]) -> Sequence[ImageRef]:
    """Return the images as a worker gets them."""
    if not refs:
        return ()
    payload = Job("0" * 32, 1, "card", tuple(refs)).to_payload()
    return Job.from_payload(json.loads(json.dumps(payload))).images


def test_members_are_listed_in_order_and_read_as_they_were_put_in(archive: Path) -> None:
    refs = listed(archive)
    assert [split_member(ref.uri)[0] for ref in refs] == [str(archive)] * len(CONTENTS)
    assert list(read_all(travelled(refs)).values()) == CONTENTS


def test_a_member_is_found_by_its_name_alone(archive: Path) -> None:
    for ref, content in zip(listed(archive), CONTENTS, strict=True):
        assert read_image(ref.uri, roots=(ANYWHERE,), max_bytes=MAX_BYTES) == content
    for name in ("gone.jpg", "21", "-1", "01", "٣", "9" * 400):
        with pytest.raises(ImageError, match="no such") as caught:
            read_image(member_uri(str(archive), name), roots=(ANYWHERE,), max_bytes=MAX_BYTES)
        assert caught.value.status is Status.NOT_FOUND


def test_a_relative_source_gives_absolute_names(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(archive.parent)
    assert listed(archive.name) == listed(archive)


def test_an_archive_whose_own_name_looks_like_a_members_can_be_read(tmp_path: Path) -> None:
    odd = tmp_path / "a.tar#b \udce9"
    odd.mkdir()
    path = write_tar(odd / "c.TAR", {"1.jpg": b"1"})
    assert read_all(listed(path)) == {"1.jpg": b"1"}


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=2000), min_size=1, max_size=8))
def test_a_tar_holds_any_name_and_any_content(tmp_path: Path, members: dict[str, bytes]) -> None:
    assert kept(write_tar(tmp_path / "a.tar", members)) == visible(members)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.dictionaries(TEXTS.filter(lambda name: not name.endswith("/")), st.binary(max_size=2000), max_size=8))
def test_a_zip_holds_any_name_and_any_content(tmp_path: Path, members: dict[str, bytes]) -> None:
    assert kept(write_zip(tmp_path / "a.zip", members)) == visible(members)


def kept(path: Path) -> dict[str, bytes | Status]:
    """Return what an archive gives back, by offset and, the same, without."""
    refs = travelled(listed(path))
    by_offset = read_all(refs)
    assert read_all([ImageRef(ref.uri, "", 0) for ref in refs]) == by_offset
    return by_offset


def visible(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return the members that are not hidden."""
    return {
        name: content
        for name, content in members.items()
        if not any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
    }


def test_members_are_selected_by_name_size_and_time_and_the_others_counted(tmp_path: Path) -> None:
    members = {"a/1.jpg": b"1" * 10, "a/2.png": b"2" * 20, "./b/3.jpg": b"3" * 30, "4.json": b"{}", ".git/5.jpg": b"5"}
    for path in (write_tar(tmp_path / "a.tar", members), write_zip(tmp_path / "a.zip", members)):
        assert names(path, Selection()) == (["a/1.jpg", "a/2.png", "./b/3.jpg"], 1)
        assert names(path, Selection(include=["b/*"])) == (["./b/3.jpg"], 3)
        assert names(path, Selection(exclude=["*.png"], min_bytes=11)) == (["./b/3.jpg"], 3)
        assert names(path, Selection(max_bytes=20)) == (["a/1.jpg", "a/2.png"], 2)


def test_members_are_selected_by_their_own_time(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_file(tar, "old.jpg", b"1", mtime=1e9)
        add_file(tar, "new.jpg", b"2", mtime=1.5e9)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("old.jpg", (2001, 9, 9, 3, 46, 40)), b"1")
        archive.writestr(zipfile.ZipInfo("new.jpg", (2017, 7, 14, 3, 40, 0)), b"2")
    for path in (tmp_path / "a.tar", tmp_path / "a.zip"):
        assert names(path, Selection(newer_than=1.2e9)) == (["new.jpg"], 1)
        assert names(path, Selection(older_than=1.2e9)) == (["old.jpg"], 1)


def names(path: Path, selection: Selection) -> tuple[list[str | None], int]:
    """Return the names of the members that are listed, and how many others there are."""
    listing = ArchiveListing(str(path), selection)
    return [split_member(ref.uri)[1] for ref in listing], listing.ignored


def test_rows_have_no_names_and_sizes_but_are_drawn_by_chance(tmp_path: Path) -> None:
    path = in_each_kind(tmp_path, CONTENTS * 20)["parquet"]
    assert len(listed(path, Selection(min_bytes=50, exclude=["*"]))) == 400
    assert 0 < len(listed(path, Selection(sample=0.5))) < 400


def test_a_second_listing_is_the_same_and_that_of_another_archive_is_not(archive: Path) -> None:
    before = listed(archive)
    assert listed(archive) == before
    os.utime(archive, ns=(1, 1))
    after = listed(archive)
    assert [ref.uri for ref in after] == [ref.uri for ref in before]
    assert {ref.fingerprint for ref in after}.isdisjoint(ref.fingerprint for ref in before)


def test_members_larger_than_the_limit_are_refused(archive: Path) -> None:
    found = list(read_all(listed(archive), max_bytes=1000).values())
    assert found == [*CONTENTS[:10], *[Status.TOO_LARGE] * 10]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08" + bytes(1000), bytes(100)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_archive_is_an_error_that_names_it_or_has_no_member(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    if kind == "tar" and not content.strip(b"\0"):
        assert listed(path) == []
        return
    with pytest.raises(SourceError, match=f"a.{kind}") as caught:
        ArchiveListing(str(path), EVERYTHING)
    assert str(caught.value).isprintable()
    assert list(read_all([ImageRef(f"{path}#1", "", 0)]).values()) == [Status.UNREADABLE]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_gone_or_a_folder_or_a_member_is_an_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"folder.{kind}").mkdir()
    for name in (f"gone.{kind}", f"folder.{kind}"):
        with pytest.raises(SourceError, match="cannot be listed"):
            ArchiveListing(str(tmp_path / name), EVERYTHING)
    with pytest.raises(SourceError, match="names a member"):
        ArchiveListing(f"s3://bucket/a.{kind}#b.{kind}", EVERYTHING)


def test_a_worker_whose_archive_is_gone_or_forbidden_says_so_of_each_member(archive: Path, tmp_path: Path) -> None:
    refs = listed(archive)
    with (
        Reader(roots=(tmp_path / "elsewhere",), max_bytes=MAX_BYTES) as reader,
        pytest.raises(ImageError, match="roots"),
    ):
        reader.read(refs[0])
    archive.unlink()
    assert set(read_all(refs).values()) == {Status.NOT_FOUND}


def test_bytes_are_changed_at_random_and_nothing_but_named_failures_comes_of_it(archive: Path) -> None:
    chance, good = Random(1), archive.read_bytes()
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 20)):
            bad[chance.randrange(len(bad))] = chance.choice((0, 255, chance.randrange(256)))
        archive.write_bytes(bad[: chance.choice((len(bad), chance.randrange(len(bad))))])
        try:
            refs = list(ArchiveListing(str(archive), EVERYTHING))
        except SourceError:
            continue
        read_all(travelled(refs[:100]))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "s3://bucket/a.tar.zst", "https://host/a.tar.xz"])
def test_a_compressed_tar_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(SourceError, match=r"unpack it to a \.tar first"):
        open_source(name, EVERYTHING, set())


def test_a_folder_of_shards_is_listed_as_one_source(tmp_path: Path) -> None:
    for name in ("a", "b/\udce9"):
        (tmp_path / name).mkdir(parents=True)
        in_each_kind(tmp_path / name, CONTENTS)
    (tmp_path / "b" / "broken.zip").write_bytes(b"PK")
    (tmp_path / "b" / "cut.tar").write_bytes((tmp_path / "a" / "a.tar").read_bytes()[:1600])
    (tmp_path / "b" / "beside.jpg").write_bytes(b"1")
    listing = ShardListing(FolderListing(str(tmp_path), ARCHIVES), Selection(exclude=["*0003.jpg"]))
    refs = list(listing)
    assert len(refs) == 2 * (19 + 19 + 20) + 1
    assert all(isinstance(content, bytes) for content in read_all(refs).values())
    assert listing.ignored == 1 + 2 * 2
    cut, broken = sorted(listing.unlistable)
    assert cut.startswith(f"{tmp_path}/b/cut.tar: it ends within its member")
    assert broken.startswith(f"source {tmp_path}/b/broken.zip cannot be listed: no zip ends here")
