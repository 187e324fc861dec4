"""Tables with images in their rows."""

import sys
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

import core.tables
from core.archives import ArchiveListing, open_archive
from core.errors import ImageError, SourceError, UsageError
from core.tables import _KEPT_BYTES, image_column
from core.verdicts import Status
from tests.archived import EVERYTHING, MAX_BYTES, listed, read_all, write_table

BYTES, TEXT = pyarrow.binary(), pyarrow.string()
HUGGING_FACE = pyarrow.struct([("bytes", BYTES), ("path", TEXT)])


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"label": TEXT, "image": HUGGING_FACE}, "image"),
        ({"thumbnail": BYTES, "photo": HUGGING_FACE}, "photo"),
        ({"embedding": BYTES, "jpg": BYTES}, "jpg"),
        ({"caption": BYTES, "photo": pyarrow.large_binary()}, "photo"),
        ({"uri": BYTES, "size": pyarrow.int64()}, None),
        ({"uri": TEXT}, None),
        ({"image": pyarrow.struct([("path", TEXT)])}, None),
        ({"image": pyarrow.list_(BYTES)}, None),
        ({}, None),
    ],
)
def test_a_table_of_images_is_told_from_a_list_of_names(columns: dict[str, Any], chosen: str | None) -> None:
    assert image_column(pyarrow.schema(list(columns.items()))) == chosen


def test_a_column_that_occurs_twice_is_passed_over() -> None:
    assert image_column(pyarrow.schema([("a", BYTES), ("a", BYTES), ("b", BYTES)])) == "b"


@pytest.mark.parametrize("is_struct", [True, False])
@pytest.mark.parametrize("group", [1, 7, 100])
def test_rows_are_read_in_any_order_and_empty_ones_are_named_failures(
    tmp_path: Path, is_struct: bool, group: int
) -> None:
    contents = [None if number % 10 == 3 else b"%d" % number * 50 for number in range(100)]
    path = write_table(tmp_path / "a.parquet", contents, group=group, is_struct=is_struct)
    refs = listed(path)
    expected = {str(number): Status.UNREADABLE if found is None else found for number, found in enumerate(contents)}
    assert {(ref.size_bytes, ref.offset) for ref in refs} == {(0, None)}
    assert read_all(refs) == expected
    shuffled = Random(1).sample(refs, 100)
    assert read_all(shuffled) == expected


def test_a_struct_whose_bytes_are_missing_holds_no_image(tmp_path: Path) -> None:
    images = pyarrow.array([{"bytes": None, "path": "/etc/passwd"}, None], HUGGING_FACE)
    parquet.write_table(pyarrow.table({"image": images}), tmp_path / "a.parquet")
    assert read_all(listed(tmp_path / "a.parquet")) == {"0": Status.UNREADABLE, "1": Status.UNREADABLE}


def test_a_dictionary_in_which_many_rows_share_a_large_image_takes_the_memory_of_few(tmp_path: Path) -> None:
    image, path = bytes(2**21), tmp_path / "a.parquet"
    table = pyarrow.table({"image": pyarrow.array([image] * 100, BYTES)})
    parquet.write_table(table, path, dictionary_pagesize_limit=2**30)
    assert path.stat().st_size < 2**20
    archive = open_archive(path.open("rb"), str(path))
    before = pyarrow.total_allocated_bytes()
    assert archive.read("99", offset=None, max_bytes=len(image)) == image
    assert pyarrow.total_allocated_bytes() - before < 10 * len(image)
    assert len(archive._passed) <= _KEPT_BYTES // len(image)
    archive.close()


def test_a_table_without_images_is_an_error(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"uri": ["/a.jpg"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="no column of it holds images"):
        ArchiveListing(str(tmp_path / "a.parquet"), EVERYTHING)


def test_broken_pages_are_failures_of_their_rows(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", [Random(n).randbytes(1000) for n in range(20)], group=10)
    refs = listed(path)
    content = bytearray(path.read_bytes())
    begin = parquet.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    content[begin : begin + 100] = b"\xff" * 100
    path.write_bytes(content)
    found = list(read_all(refs).values())
    assert found[:10] == [Status.UNREADABLE] * 10
    assert found[10:] == [Random(n).randbytes(1000) for n in range(10, 20)]


def test_a_number_of_rows_that_cannot_be_is_not_listed(tmp_path: Path) -> None:
    parquet.write_table(
        pyarrow.table({"image": pyarrow.array([None] * 10**6, BYTES)}), tmp_path / "a.parquet", row_group_size=10**6
    )
    with pytest.raises(SourceError, match="declares 1000000 rows"):
        ArchiveListing(str(tmp_path / "a.parquet"), EVERYTHING)


def test_threads_that_come_a_little_out_of_order_do_not_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "a.parquet", [b"%d" % number for number in range(300)])
    archive = open_archive(path.open("rb"), str(path))
    begun: list[int] = []
    read_groups = core.tables._read_groups
    monkeypatch.setattr(
        core.tables,
        "_read_groups",
        lambda table, groups, column: begun.append(groups[0]) or read_groups(table, groups, column),
    )
    order = [number for start in range(0, 300, 30) for number in Random(start).sample(range(start, start + 30), 30)]
    found: dict[int, bytes] = {}

    def read(numbers: list[int]) -> None:
        for number in numbers:
            found[number] = archive.read(str(number), offset=None, max_bytes=MAX_BYTES)

    read(order)
    assert begun == [0]
    threads = [Thread(target=read, args=(order[part::8],)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: b"%d" % number for number in range(300)}
    archive.close()


def test_without_pyarrow_the_way_to_install_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "a.parquet", [b"1"])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r"pip install 'facesieve\[cloud\]'"):
        ArchiveListing(str(path), EVERYTHING)


def test_a_row_that_the_table_lacks_is_not_found(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", [b"1"])
    archive = open_archive(path.open("rb"), str(path))
    with pytest.raises(ImageError, match="no such row"):
        archive.read("1", offset=None, max_bytes=1)
    archive.close()
