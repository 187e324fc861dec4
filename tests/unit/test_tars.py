"""Tars: odd and hostile headers, and offsets that lead elsewhere."""

import tarfile
from pathlib import Path

import pytest

from core.archives import ArchiveListing
from core.errors import ImageError, SourceError
from core.images import ImageRef
from core.storage import Reader
from core.tars import MAX_HEADER
from core.uris import ANYWHERE, member_uri, split_member
from core.verdicts import Status
from tests.archived import EVERYTHING, MAX_BYTES, add_file, listed, read_all, write_tar

BLOCK = tarfile.BLOCKSIZE


def read_from(path: Path, name: str, offset: int) -> bytes:
    """Read a member as a message asks for it."""
    with Reader(roots=(ANYWHERE,), max_bytes=MAX_BYTES) as reader:
        return reader.read(ImageRef(member_uri(str(path), name), "", 0, offset))


def listed_until(path: Path) -> tuple[list[str | None], str]:
    """Return the names that are listed before an archive breaks, and the line that says how."""
    listing = ArchiveListing(str(path), EVERYTHING)
    names = [split_member(ref.uri)[1] for ref in listing]
    (line,) = listing.unlistable
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    return names, line


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_format_is_read_with_long_names_absolute_ones_and_dots(tmp_path: Path, format: int) -> None:  # noqa: A002
    members = {
        "a.jpg": b"1" * 1000,
        "/etc/passwd": b"2",
        "../../b.jpg": b"3" * 512,
        "ü/caf\udce9.jpg": b"",
        f"{'d' * 150}/{'n' * 90}.jpg": b"4" * 513,
    }
    if format != tarfile.USTAR_FORMAT:
        members["x/" * 2000 + "c.jpg"] = b"5"
    assert read_all(listed(write_tar(tmp_path / "a.tar", members, format))) == members
    assert not (tmp_path.parent.parent / "b.jpg").exists()


def test_only_files_are_listed_and_what_else_is_there_is_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            add_file(tar, f"{kind.decode()}.jpg", b"", type=kind, linkname="/etc/passwd")
        add_file(tar, "folder.jpg", b"", type=tarfile.DIRTYPE)
        add_file(tar, "sparse.jpg", b"", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000"})
        add_file(tar, "a.jpg", b"1")
    listing = ArchiveListing(str(tmp_path / "a.tar"), EVERYTHING)
    refs = list(listing)
    assert read_all(refs) == {"a.jpg": b"1"}
    assert listing.ignored == 6
    # Nor does a message get at them.
    (ref,) = refs
    assert ref.offset is not None
    for offset in range(0, ref.offset, BLOCK):
        for name in ("1.jpg", "2.jpg", "folder.jpg"):
            with pytest.raises(ImageError, match="no such member"):
                read_from(tmp_path / "a.tar", name, offset)


def test_of_a_name_that_occurs_twice_the_last_one_counts_and_both_can_be_told_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_file(tar, "a.jpg", b"old")
        add_file(tar, "a.jpg", b"new")
    first, second = listed(tmp_path / "a.tar")
    assert (first.uri, first.fingerprint) != (second.uri, second.fingerprint)
    assert [read_all([ref])["a.jpg"] for ref in (first, second)] == [b"old", b"new"]
    assert read_all([ImageRef(first.uri, "", 0)]) == {"a.jpg": b"new"}


def test_a_message_cannot_read_what_has_no_header_of_that_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"1" * 2000, "b" * 200: b"2"})
    right = {ref.offset for ref in listed(path)}
    size = path.stat().st_size
    for offset in [*range(0, size + 2 * BLOCK, 256), 2**40, 2**63 - 1]:
        for name in ("a.jpg", "b" * 200, "PaxHeader/b"):
            if offset not in right or name == "PaxHeader/b":
                with pytest.raises(ImageError, match=f"no such member at byte {offset}") as caught:
                    read_from(path, name, offset)
                assert caught.value.status is Status.NOT_FOUND
    with pytest.raises(ImageError, match="no such member at byte 0"):
        read_from(path, "b" * 200, 0)


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 1024, 1111])
def test_of_a_truncated_tar_the_whole_members_are_listed_and_the_rest_is_reported(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1" * 600, "2.jpg": b"2" * 600})
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * BLOCK + cut])
    names, line = listed_until(path)
    assert names == ["1.jpg"]
    assert ("within its member '2.jpg'" if cut >= BLOCK else "within the header at byte 1536") in line


def test_a_tar_without_an_end_mark_is_whole(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1" * 600})
    path.write_bytes(path.read_bytes()[: BLOCK + 600])
    assert read_all(listed(path)) == {"1.jpg": b"1" * 600}


def test_a_tar_that_lost_its_end_after_it_was_listed_gives_named_failures(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1" * 600, "2.jpg": b"2" * 600, "3.jpg": b"3"})
    refs = listed(path)
    path.write_bytes(path.read_bytes()[: 4 * BLOCK + 100])
    assert read_all(refs) == {"1.jpg": b"1" * 600, "2.jpg": Status.TRUNCATED, "3.jpg": Status.NOT_FOUND}


def test_a_broken_header_ends_the_listing_and_is_reported(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1", "2.jpg": b"2", "3.jpg": b"3"})
    content = bytearray(path.read_bytes())
    content[2 * BLOCK + 5] ^= 1
    path.write_bytes(content)
    names, line = listed_until(path)
    assert names == ["1.jpg"]
    assert "byte 1024" in line


@pytest.mark.parametrize("size", [-(2**40), -512, -1, 2**62, 2**94])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, b"?"])
def test_impossible_sizes_neither_loop_nor_take_memory(tmp_path: Path, size: int, kind: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1", "2.jpg": b"2" * 2000, "3.jpg": b"3"})
    content = bytearray(path.read_bytes())
    header = content[2 * BLOCK : 3 * BLOCK]
    header[124:136] = (b"\x80" if size >= 0 else b"\xff") + (size % 2**88).to_bytes(11)
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(content[: 2 * BLOCK]) + bytes(header) + bytes(content[3 * BLOCK :]))
    listing = ArchiveListing(str(path), EVERYTHING)
    assert split_member(next(iter(listing)).uri)[1] == "1.jpg"
    assert len(list(ArchiveListing(str(path), EVERYTHING))) <= 3


def test_headers_that_nest_without_end_or_are_endless_are_broken(tmp_path: Path) -> None:
    longname = tarfile.TarInfo("././@LongLink")
    longname.type, longname.size = tarfile.GNUTYPE_LONGNAME, 0
    (tmp_path / "a.tar").write_bytes(longname.tobuf(tarfile.GNU_FORMAT) * 100_000)
    longname.size = MAX_HEADER
    (tmp_path / "b.tar").write_bytes(longname.tobuf(tarfile.GNU_FORMAT) + b"x" * 2 * MAX_HEADER)
    for name in ("a.tar", "b.tar"):
        with pytest.raises(SourceError, match="byte 0"):
            ArchiveListing(str(tmp_path / name), EVERYTHING)


def test_a_name_that_no_message_can_hold_is_reported_once(tmp_path: Path) -> None:
    members = {"n" * 20_000 + ".jpg": b"1", "\udcff" * 6000 + ".jpg": b"2", "3.jpg": b"3"}
    names, line = listed_until(write_tar(tmp_path / "a.tar", members))
    assert names == ["3.jpg"]
    assert "2 members whose names are too long" in line


def test_a_compressed_tar_is_told_to_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        add_file(tar, "1.jpg", b"1")
    with pytest.raises(SourceError, match="has to be unpacked"):
        ArchiveListing(str(tmp_path / "a.tar"), EVERYTHING)
