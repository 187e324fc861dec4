"""Zips: bombs, lies, and offsets that lead elsewhere."""

import stat
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from core.archives import ArchiveListing, open_archive
from core.errors import ImageError, SourceError
from core.images import ImageRef
from core.storage import Reader
from core.uris import ANYWHERE, member_uri, split_member
from core.verdicts import Status
from tests.archived import EVERYTHING, MAX_BYTES, listed, read_all, write_zip

#: Where fields stand in the entry of a directory.
FLAGS, METHOD, CHECKSUM, PACKED, SIZE, LOCAL = (8, "<H"), (10, "<H"), (16, "<L"), (20, "<L"), (24, "<L"), (42, "<L")


def changed(path: Path, name: str, field: tuple[int, str], value: int) -> None:
    """Change what the directory says of a member."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(name.encode()) - 46
    assert content[entry : entry + 4] == b"PK\1\2"
    struct.pack_into(field[1], content, entry + field[0], value)
    path.write_bytes(content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_absolute_names_and_dots_are_just_names(tmp_path: Path, method: int) -> None:
    members = {"/etc/passwd": b"1" * 1000, "../../b.jpg": b"2", "ü.jpg": b"", "d/../e.jpg": b"3"}
    assert read_all(listed(write_zip(tmp_path / "a.zip", members, method))) == members
    assert not (tmp_path.parent.parent / "b.jpg").exists()


def test_folders_are_passed_over_and_links_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("folder.jpg")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.jpg", b"1")
    listing = ArchiveListing(str(tmp_path / "a.zip"), EVERYTHING)
    assert read_all(list(listing)) == {"a.jpg": b"1"}
    assert listing.ignored == 1


def test_a_zip_that_was_streamed_and_one_behind_other_bytes_are_read(tmp_path: Path) -> None:
    class Pipe(BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *where: int) -> int:
            raise OSError

        tell = seek

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # sizes come behind the content
        archive.writestr("a.jpg", b"1" * 1000)
        archive.writestr("b.jpg", b"2" * 1000)
        archive.comment = b"PK\5 no end"
    for name, before in (("plain.zip", b""), ("behind.zip", b"#!/bin/sh\n" * 10)):
        (tmp_path / name).write_bytes(before + pipe.getvalue())
        assert read_all(listed(tmp_path / name)) == {"a.jpg": b"1" * 1000, "b.jpg": b"2" * 1000}


def test_sizes_and_places_beyond_32_bits_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZIP64_LIMIT", "ZIP_FILECOUNT_LIMIT"):
        monkeypatch.setattr(zipfile, name, 2)
    members = {f"{number}.jpg": bytes([number]) * 100 for number in range(5)}
    path = write_zip(tmp_path / "a.zip", members)
    assert b"PK\6\6" in path.read_bytes()
    assert read_all(listed(path)) == members


def test_values_that_stand_in_the_extra_field_are_found_there(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("b.jpg")
        info.extra = struct.pack("<2H2x", 9, 2) + struct.pack("<2H3Q", 1, 24, 5, 5, 0)
        archive.writestr(info, b"12345")
    for field in (SIZE, PACKED, LOCAL):
        changed(path, "b.jpg", field, 2**32 - 1)
    (ref,) = listed(path)
    assert ref.size_bytes == 5
    assert read_all([ref]) == {"b.jpg": b"12345"}


def test_a_fingerprint_tells_contents_apart_even_in_archives_of_the_same_size_and_time(tmp_path: Path) -> None:
    names = {"a.jpg": b"1" * 100, "b.jpg": b"2" * 100}
    before = fingerprints(write_zip(tmp_path / "a.zip", names, zipfile.ZIP_STORED))
    after = fingerprints(write_zip(tmp_path / "a.zip", names | {"b.jpg": b"3" * 100}, zipfile.ZIP_STORED))
    assert before[0] == after[0]
    assert before[1] != after[1]


def fingerprints(path: Path) -> list[str]:
    """Return the part of the fingerprints that is the members' own."""
    return [ref.fingerprint.partition("@")[2] for ref in listed(path)]


def test_a_bomb_is_refused_by_what_it_declares_and_stopped_if_it_lies(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"honest.jpg": bytes(50 * MAX_BYTES), "lying.jpg": bytes(50 * MAX_BYTES)})
    assert path.stat().st_size < MAX_BYTES / 4
    changed(path, "lying.jpg", SIZE, 1000)
    assert read_all(listed(path)) == {"honest.jpg": Status.TOO_LARGE, "lying.jpg": Status.UNREADABLE}


@pytest.mark.parametrize(
    ("field", "value", "status", "reason"),
    [
        (FLAGS, 1, Status.UNREADABLE, "encrypted"),
        (METHOD, zipfile.ZIP_BZIP2, Status.UNSUPPORTED, "method 12"),
        (METHOD, zipfile.ZIP_STORED, Status.UNREADABLE, "declares"),
        (CHECKSUM, 0, Status.UNREADABLE, "checksum"),
        (SIZE, 999, Status.UNREADABLE, "declares"),
        (SIZE, 1001, Status.UNREADABLE, "declares"),
        (SIZE, MAX_BYTES + 1, Status.TOO_LARGE, "limit"),
        (PACKED, 0, Status.UNREADABLE, "declares"),
        (PACKED, 500_000, Status.TRUNCATED, "ends"),
        (PACKED, MAX_BYTES + 1, Status.TOO_LARGE, "limit"),
        (LOCAL, 1, Status.UNREADABLE, "not where"),
        (LOCAL, 2**31, Status.UNREADABLE, "not where"),
    ],
)
def test_each_lie_of_the_directory_is_a_named_failure_of_that_member_alone(
    tmp_path: Path, field: tuple[int, str], value: int, status: Status, reason: str
) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": bytes(range(250)) * 4, "b.jpg": b"2"})
    changed(path, "a.jpg", field, value)
    refs = listed(path)
    assert read_all(refs) == {"a.jpg": status, "b.jpg": b"2"}
    with Reader(roots=(ANYWHERE,), max_bytes=MAX_BYTES) as reader, pytest.raises(ImageError, match=reason):
        reader.read(refs[0])


def test_what_cannot_be_inflated_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": bytes(range(250)) * 4})
    refs = listed(path)
    content = path.read_bytes()
    path.write_bytes(content[:35] + b"\xff" * 20 + content[55:])
    assert read_all(refs) == {"a.jpg": Status.UNREADABLE}


def test_members_that_share_their_bytes_are_each_read_for_themselves(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1" * 1000, "b.jpg": b"1" * 1000})
    changed(path, "b.jpg", LOCAL, 0)
    assert read_all(listed(path)) == {"a.jpg": b"1" * 1000, "b.jpg": b"1" * 1000}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_a_name_that_occurs_twice_the_last_one_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"old")
        archive.writestr("a.jpg", b"new")
    refs = listed(tmp_path / "a.zip")
    assert [read_all([ref])["a.jpg"] for ref in refs] == [b"old", b"new"]
    assert read_all([ImageRef(refs[0].uri, "", 0)]) == {"a.jpg": b"new"}


def test_a_message_cannot_read_what_has_no_entry_of_that_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1" * 100, "b.jpg": b"2" * 100})
    right = {(split_member(ref.uri)[1], ref.offset) for ref in listed(path)}
    with Reader(roots=(ANYWHERE,), max_bytes=MAX_BYTES) as reader:
        for offset in [*range(path.stat().st_size + 10), 2**40, 2**63 - 1]:
            for name in ("a.jpg", "b.jpg"):
                if (name, offset) not in right:
                    with pytest.raises(ImageError, match=f"no such member at byte {offset}") as caught:
                        reader.read(ImageRef(member_uri(str(path), name), "", 0, offset))
                    assert caught.value.status is Status.NOT_FOUND


def test_a_zip_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1" * 100})
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(SourceError, match="cut off"):
            ArchiveListing(str(path), EVERYTHING)


def test_a_broken_entry_ends_the_listing_and_is_reported(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.jpg": b"1", "b.jpg": b"2", "c.jpg": b"3"})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2", 0, content.rindex(b"c.jpg") - 46)] = 0
    path.write_bytes(content)
    listing = ArchiveListing(str(path), EVERYTHING)
    assert [split_member(ref.uri)[1] for ref in listing] == ["a.jpg"]
    assert listing.unlistable == [f"{path}: the directory of the zip is broken"]


def test_a_directory_of_many_pieces_is_read_in_any_order(tmp_path: Path) -> None:
    members = {f"{number:05}-{'n' * 1000}.jpg": b"%d" % number for number in range(2000)}
    path = write_zip(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    refs = listed(path)
    assert read_all(refs) == members
    assert read_all(refs[::-37]) == {name: members[name] for name in list(members)[::-37]}


def test_an_offset_far_beyond_the_directory_is_not_sought_for(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {})
    assert listed(path) == []
    archive = open_archive(path.open("rb"), str(path))
    with pytest.raises(ImageError, match="no such member"):
        archive.read("a.jpg", offset=None, max_bytes=1)
    archive.close()
