"""What lists of images name, and what is said of lines that name none."""

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyarrow import parquet

from core.errors import SourceError
from core.files import describe
from core.images import UNCHANGING, ImageRef
from core.jobs import MAX_URI_LENGTH
from core.selection import Selection
from core.uris import path_to_uri, split_member
from producer.manifests import ManifestListing
from producer.rows import MAX_LINE_BYTES, MOST_FLAWS
from producer.scan import Scan

KINDS = (".txt", ".txt.gz", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    """Write a list whose rows have these columns; plain lines have the first one."""
    path = folder / f"list{kind}"
    if kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if kind.startswith(".txt"):
        lines = [str(next(iter(row.values()))) for row in rows]
    elif kind.startswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = list(map(json.dumps, rows))
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    return path


def listed(path: Path, content: bytes, column: str | None = None, **options: Any) -> tuple[list[ImageRef], list[str]]:
    """Return what a list with this content names, and the reasons why lines name nothing, without the list's name."""
    path.write_bytes(content)
    listing = ManifestListing(str(path), Selection(**options), column)
    images = list(listing)
    assert listing.unlistable_count == len(listing.unlistable)
    return images, [line.removeprefix(f"{path} ") for line in listing.unlistable]


def uris(path: Path, content: bytes, column: str | None = None) -> list[str]:
    """Return what a list names, each line of it."""
    images, flaws = listed(path, content, column)
    assert flaws == []
    return [ref.uri for ref in images]


def flaw(path: Path, content: bytes) -> str:
    """Return why the only line of a list that is wrong names nothing; the image a.jpg is named before and after."""
    images, flaws = listed(path, content)
    assert {ref.uri for ref in images} == {str(path.parent / "a.jpg")}
    assert len(images) == 2
    (reason,) = flaws
    return reason


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put these bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return put


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put a list with this content behind every URI, to be read without a buffer."""

    class Content(io.RawIOBase):
        def __init__(self, content: bytes) -> None:
            self._content = io.BytesIO(content)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self._content.readinto(buffer)

    def put(content: bytes) -> None:
        monkeypatch.setattr("producer.manifests.open_named", lambda uri: (Content(content), "1"))

    return put


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_list_names_files_with_their_fingerprints(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"123")
    path = write(tmp_path, kind, [{"path": "a.jpg"}, {"path": f"{tmp_path}/b"}])
    images = list(ManifestListing(str(path), Selection()))
    assert images == [describe(str(tmp_path / name))[0] for name in ("a.jpg", "b")]
    assert [ref.size_bytes for ref in images] == [5, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_list_names_what_is_remote_without_looking(kind: str, tmp_path: Path) -> None:
    names = ["s3://b/a.jpg", "gs://b/x/a b.jpg", "az://c/a#b.jpg", "https://host:8443/a?x=1", "s3://b/s.tar#0003.jpg"]
    path = write(tmp_path, kind, [{"url": name} for name in names])
    assert list(ManifestListing(str(path), Selection())) == [ImageRef(name, UNCHANGING, 0) for name in names]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ".txt" not in kind])
@pytest.mark.parametrize(
    ("row", "fingerprint", "size"),
    [
        ({"fingerprint": "abc-1", "size": 17}, "abc-1", 17),
        ({"Fingerprint": "abc-1", "etag": "x", "Size_Bytes": 17}, "abc-1", 17),
        ({"ETag": "abc", "size": 17}, "abc-17", 17),  # as listing the bucket would have it
        ({"etag": 'W/"abc"'}, "abc", 0),
        ({"etag": 5, "size": "17"}, "5-17", 17),
        ({"size": 17}, UNCHANGING, 17),
        ({"etag": "", "fingerprint": ""}, UNCHANGING, 0),
    ],
    ids=str,
)
def test_fingerprint_and_size_of_what_is_remote_come_from_the_list(
    kind: str, row: dict[str, Any], fingerprint: str, size: int, tmp_path: Path
) -> None:
    if kind.startswith(".csv") and '"' in str(row):
        row = {name: f'"{value.replace(chr(34), chr(34) * 2)}"' for name, value in row.items()}
    path = write(tmp_path, kind, [{"uri": "s3://b/a.jpg", **row}])
    assert list(ManifestListing(str(path), Selection())) == [ImageRef("s3://b/a.jpg", fingerprint, size)]


@pytest.mark.parametrize("size", ["", "-1", "many", "1e99", "inf", "9" * 30])
def test_an_impossible_size_is_an_unknown_one(size: str, tmp_path: Path) -> None:
    images, _ = listed(tmp_path / "list.csv", f"uri,size\ns3://b/a.jpg,{size}\n".encode())
    assert images == [ImageRef("s3://b/a.jpg", UNCHANGING, 0)]


def test_a_file_that_is_missing_is_listed_for_the_worker_to_say_so(tmp_path: Path) -> None:
    images, flaws = listed(tmp_path / "list.txt", b"gone.jpg\n")
    assert (images, flaws) == ([ImageRef(f"{tmp_path}/gone.jpg", "", 0)], [])


def test_blank_lines_and_comments_are_passed_over(tmp_path: Path) -> None:
    found = uris(tmp_path / "list.txt", b"\xef\xbb\xbf# faces\r\n\r\na.jpg\r\n  \t\n#b.jpg\n./#c.jpg\n\nd.jpg")
    assert found == [f"{tmp_path}/{name}" for name in ("a.jpg", "#c.jpg", "d.jpg")]


def test_spaces_belong_to_a_name(tmp_path: Path) -> None:
    assert uris(tmp_path / "list.txt", b" a.jpg \n") == [f"{tmp_path}/ a.jpg "]


def test_paths_begin_at_the_folder_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists" / "list.txt").write_bytes(b"x/a.jpg\n./b.jpg\n../c.jpg\n/d/../e.jpg\n")
    found = [ref.uri for ref in ManifestListing("lists/list.txt", Selection())]
    assert found == [f"{tmp_path}/lists/x/a.jpg", f"{tmp_path}/lists/b.jpg", f"{tmp_path}/c.jpg", "/e.jpg"]


@pytest.mark.parametrize("folder", ["s3://faces/2024", "s3://faces", "https://host:8443/x"])
def test_paths_begin_at_the_prefix_of_a_list_that_is_remote(folder: str, remote: Callable[[bytes], None]) -> None:
    remote(b"x/a.jpg\n./b.jpg\ns3://c/d.jpg\n")
    found = [ref.uri for ref in ManifestListing(f"{folder}/list.txt", Selection())]
    assert found == [f"{folder}/x/a.jpg", f"{folder}/b.jpg", "s3://c/d.jpg"]


def test_paths_on_standard_input_begin_at_the_current_folder(
    tmp_path: Path, typed: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed(b"a.jpg\n/b.jpg\n")
    assert [ref.uri for ref in ManifestListing("-", Selection())] == [f"{tmp_path}/a.jpg", "/b.jpg"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'\n{"url": "s3://b/1.jpg"}\n\n"s3://b/2.jpg"\n', ["s3://b/1.jpg", "s3://b/2.jpg"]),
        (b'"s3://b/1.jpg"\n{"url": "s3://b/2.jpg"}\n', ["s3://b/1.jpg", "s3://b/2.jpg"]),
        (b"\n/{braces}%s.jpg\n/b.jpg\n", ["/{braces}%s.jpg", "/b.jpg"]),
        (b"12\n", ["/12"]),
    ],
    ids=["object", "string", "plain", "number"],
)
def test_standard_input_has_json_if_its_first_line_is_an_object_or_a_string(
    content: bytes, found: list[str], typed: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    typed(content)
    assert [ref.uri for ref in ManifestListing("-", Selection())] == found


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="source - cannot be listed: it is closed"):
        ManifestListing("-", Selection())


def test_a_terminal_is_told_that_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, inside = os.openpty()
    with os.fdopen(outside, "wb", buffering=0) as keyboard, os.fdopen(inside) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        keyboard.write(b"/a.jpg\n\x04")
        assert [ref.uri for ref in ManifestListing("-", Selection())] == ["/a.jpg"]
    assert "Ctrl+D" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "column", "found"),
    [
        ("id,PATH,url", None, "s3://b/2"),
        ("uri,path,url", None, "s3://b/0"),
        ("id,filename,image", None, "s3://b/2"),
        (" File , id,x", None, "s3://b/0"),
        ("uri,path,url", "path", "s3://b/1"),
        ("uri,path,url", "PATH", "s3://b/1"),
        ("Where,where,url", "where", "s3://b/1"),
        ("file,file,x", None, "s3://b/0"),
    ],
)
def test_the_column_is_the_one_asked_for_or_the_likeliest(
    header: str, column: str | None, found: str, tmp_path: Path
) -> None:
    assert uris(tmp_path / "list.csv", f"{header}\ns3://b/0,s3://b/1,s3://b/2\n".encode(), column) == [found]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ".txt" not in kind])
@pytest.mark.parametrize(
    ("column", "said"), [(None, "none of the columns uri, url, path"), ("where", "no column where")]
)
def test_a_list_without_the_column_is_an_error_that_names_those_it_has(
    kind: str, column: str | None, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind, [{"place": "a.jpg", "caption": "a face"}])
    with pytest.raises(SourceError, match=f"cannot be listed: {said}.*--column can choose among place, caption"):
        ManifestListing(str(path), Selection(), column)


def test_a_list_named_by_a_column_that_holds_no_text_names_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, ".parquet", [{"id": 1}, {"id": 2}])
    with pytest.raises(
        SourceError, match=r"no images in .*; 2 could not be listed, the first: .* line 1: 'id' holds no text"
    ):
        Scan([str(path)], column="id")


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_a_row_without_a_name_is_counted(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path, kind, [{"uri": "s3://b/1"}, {"uri": None}, {"uri": "s3://b/3"}])
    listing = ManifestListing(str(path), Selection())
    assert [ref.uri for ref in listing] == ["s3://b/1", "s3://b/3"]
    assert listing.unlistable == [f"{path} line 2: 'uri' holds no text"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"ftp://host/a.jpg", "the schemes are s3"),
        (b"S3://b/a.jpg", "the schemes are s3"),
        (b"file://host/a.jpg", "the URI names no local file"),
        (b"file:///a%00.jpg", "the URI names no local file"),
        (b"a\0b.jpg", "it holds a NUL"),
        (b"s3://b/x/../a.jpg", "it has . or .. for a folder"),
        (b"https://host/%2E%2e/a.jpg", "it has . or .. for a folder"),
        (b"s3://b", "it names a folder"),
        (b"s3://b/", "it names a folder"),
        (b"s3://b/x/", "it names a folder"),
        (b"s3://b/caf\xe9.jpg", "what is no UTF-8"),
        (b"s3://b/a.tar", "it names an archive"),
        (b"faces.ZIP", "it names an archive"),
        (b".", "it names a folder"),
        (b"/" + b"x" * MAX_URI_LENGTH, "more than 16,384 characters"),
        (b"https://host/" + b"x" * MAX_URI_LENGTH, "more than 16,384 characters"),
        (b"/" + b"\xe9" * (MAX_URI_LENGTH // 3), "more than 16,384 characters"),
        (b"/" + b"x" * 3 * MAX_LINE_BYTES, "longer than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_line_that_names_no_image_is_counted_with_its_number_and_the_reason(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    found = flaw(tmp_path / "list.txt", b"a.jpg\n\n" + line + b"\na.jpg\n")
    assert found.startswith("line 3: ")
    assert reason in found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "neither a JSON object nor a JSON string"),
        (b"[" * 100_000, "neither a JSON object nor a JSON string"),
        (b"9" * 5000, "neither a JSON object nor a JSON string"),
        (b'["a.jpg"]', "neither a JSON object nor a JSON string"),
        (b'"caf\xe9.jpg"', "neither a JSON object nor a JSON string"),
        (b'{"uri": 7}', "'uri' holds no text"),
        (b'{"url": "a.jpg"}', "'uri' holds no text"),
        (b'""', "it is empty"),
        (b'"a\\u0000b.jpg"', "it holds a NUL"),
        (b'"\\ud800.jpg"', "what is no UTF-8"),
        (b'"s3://b/\\udce9.jpg"', "what is no UTF-8"),
        (b'{"uri": "s3://b/a.jpg", "etag": "\\u0000"}', "its fingerprint holds a NUL"),
        (b'{"uri": "s3://b/a.jpg", "etag": "\\ud800"}', "what is no UTF-8"),
        (b'{"uri": "s3://b/a.jpg", "etag": "' + b"x" * 20_000 + b'"}', "more than 16,384 characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_json_line_that_names_no_image_is_counted(line: bytes, reason: str, tmp_path: Path) -> None:
    found = flaw(tmp_path / "list.jsonl", b'{"uri": "a.jpg", "etag": ""}\n' + line + b'\n"a.jpg"\n')
    assert found.startswith("line 2: ")
    assert reason in found


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"2,3\n", "line 3: it has fewer columns than the first line"),
        (b"2,3,\n", "line 3: it is empty"),
        (b'2,3,"a"b.jpg\n', "line 3: not CSV"),
        (b"2,3,a\rb.jpg\n", "line 3: not CSV"),
        (b'2,"' + b"x" * 200_000 + b'",a.jpg\n', "line 3: not CSV: field larger than field limit"),
        (b'2,"never closed\n' + b"1,2,b.jpg\n" * 13_200 + b"x" * 5 + b"\n", "line 3 to "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_csv_that_is_wrong_is_counted_and_the_lines_behind_it_are_read(
    lines: bytes, reason: str, tmp_path: Path
) -> None:
    content = b"id,caption,file\n1,,a.jpg\n" + lines
    images, (found, *_) = listed(tmp_path / "list.csv", content + b"9,,z.jpg\n")
    assert found.startswith(reason)
    assert [images[0].uri, images[-1].uri] == [f"{tmp_path}/a.jpg", f"{tmp_path}/z.jpg"]


def test_a_quote_that_is_never_closed_does_not_swallow_the_end_in_silence(tmp_path: Path) -> None:
    images, (reason,) = listed(tmp_path / "list.csv", b'file\na.jpg\n"b.jpg\nc.jpg\n')
    assert [ref.uri for ref in images] == [f"{tmp_path}/a.jpg"]
    assert reason.startswith("line 3 to 4: not CSV")


def test_a_name_in_csv_may_hold_commas_quotes_and_lines(tmp_path: Path) -> None:
    assert uris(tmp_path / "list.csv", b'file,x\n"a,""b""\nc.jpg",\n') == [f'{tmp_path}/a,"b"\nc.jpg']


def test_a_csv_file_that_begins_wrong_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b'"file"x\na.jpg\n')
    with pytest.raises(SourceError, match="its first line is not CSV"):
        ManifestListing(str(tmp_path / "list.csv"), Selection())


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_without_images_is_an_error(kind: str, tmp_path: Path) -> None:
    if kind == ".parquet":
        parquet.write_table(pyarrow.table({"uri": pyarrow.array([], pyarrow.string())}), tmp_path / "list.parquet")
    else:
        (tmp_path / f"list{kind}").write_bytes(gzip.compress(b"") if kind.endswith(".gz") else b"")
    with pytest.raises(SourceError, match="no images in "):
        Scan([f"{tmp_path}/list{kind}"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_is_not_there_is_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be listed: the file is gone"):
        Scan([f"{tmp_path}/list{kind}"])


@pytest.mark.parametrize("kind", [".txt.gz", ".parquet"])
def test_a_list_that_is_something_else_is_an_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"list{kind}").write_bytes(b"a.jpg\n" * 100)
    with pytest.raises(SourceError, match="cannot be listed: "):
        Scan([f"{tmp_path}/list{kind}"])


def test_what_is_read_of_a_broken_list_counts_and_the_rest_is_told(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"s3://b/{index * 7919}.jpg\n" for index in range(10_000)).encode())
    images, (reason,) = listed(tmp_path / "list.txt.gz", whole[: len(whole) // 2])
    assert 1000 < len(images) < 9000
    assert reason.startswith(f"line {len(images) + 1} and all that follow: ")


def test_few_reasons_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\n" + b"ftp://x\n" * 12_345)
    scan = Scan([str(path)])
    assert len(list(scan)) == 1
    assert scan.unlistable_count == 12_345
    assert len(scan.unlistable) == MOST_FLAWS + 1
    assert scan.unlistable[-1] == f"{path}: 12,245 more of its lines"


def test_a_member_of_an_archive_has_the_fingerprint_of_the_archive(tmp_path: Path) -> None:
    archive, _ = describe(str(tmp_path / "list.txt"))
    (tmp_path / "s.tar").write_bytes(b"tar")
    archive, _ = describe(str(tmp_path / "s.tar"))
    images, flaws = listed(
        tmp_path / "list.txt", b"s.tar#x/1%25.jpg\nfile://" + str(tmp_path).encode() + b"/s.tar#2.jpg\n"
    )
    assert flaws == []
    assert [ref.uri for ref in images] == [f"{archive.uri}#x/1%25.jpg", f"{archive.uri}#2.jpg"]
    assert {ref.fingerprint for ref in images} == {archive.fingerprint}


def test_a_file_uri_is_named_as_a_folder_would_name_it(tmp_path: Path) -> None:
    folder = str(tmp_path).encode()
    content = b"file://%s/a%%20b.jpg\nfile://%s/caf%%E9.jpg\n" % (folder, folder)
    assert uris(tmp_path / "list.txt", content) == [f"{tmp_path}/a b.jpg", f"file://{tmp_path}/caf%E9.jpg"]


@given(st.binary(min_size=1, max_size=30))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_name_that_a_file_can_have_is_named_as_a_folder_would_name_it(tmp_path: Path, name: bytes) -> None:
    name = name.translate(None, b"\0\n\r/:") or b"x"
    if name in (b".", b"..") or name.lower().endswith((b".tar", b".zip", b".parquet")):
        return
    path = f"{tmp_path}/x/{os.fsdecode(name)}"
    if split_member(path.encode(errors="replace").decode())[1] is not None:
        return  # names a member, as the documentation says
    assert uris(tmp_path / "list.txt", b"x/" + name + b"\n") == [path_to_uri(path)]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, ["a.jpg", "b", "thumbs/c.jpg"]),
        ({"include": ["*.jpg"]}, ["a.jpg", "thumbs/c.jpg"]),
        ({"exclude": ["thumbs/*"]}, ["a.jpg", "b"]),
        ({"max_bytes": 10}, ["a.jpg", "thumbs/c.jpg"]),
        ({"min_bytes": 10}, ["b", "thumbs/c.jpg"]),
    ],
    ids=str,
)
def test_a_list_obeys_the_selection_but_needs_no_suffixes(
    options: dict[str, Any], found: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"x" * 20)
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\n./b\n./thumbs/c.jpg\n")  # the size of what is not there is not known
    listing = ManifestListing(str(path), Selection(**options))
    assert [ref.uri for ref in listing] == [f"{tmp_path}/{name}" for name in found]
    assert listing.ignored == 3 - len(found)


def test_a_line_that_is_not_wanted_is_not_looked_at(tmp_path: Path) -> None:
    images, flaws = listed(tmp_path / "list.txt", b"s3://b/a.jpg\nftp://x/a.txt\n", include=["*.jpg"])
    assert ([ref.uri for ref in images], flaws) == (["s3://b/a.jpg"], [])


def test_a_folder_that_is_called_like_a_list_is_a_folder(tmp_path: Path) -> None:
    for name in ("faces.txt", "faces.csv.gz", "faces.parquet", "faces.zip"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.jpg").touch()
        scan = Scan([str(folder)])
        assert [ref.uri for ref in scan] == [f"{folder}/a.jpg"]
        assert scan.prefixes == (f"{folder}/", f"file://{folder}/")


IMAGES = [{"bytes": b"jpeg", "path": "a.jpg"}]


@pytest.mark.parametrize(
    ("columns", "column", "found"),
    [
        ({"url": ["s3://b/1"]}, None, "s3://b/1"),
        ({"url": [b"s3://b/1"]}, None, "s3://b/1"),
        ({"image": IMAGES}, None, "#0"),
        ({"image": IMAGES, "url": ["s3://b/1"]}, None, "#0"),
        ({"image": IMAGES, "url": ["s3://b/1"]}, "URL", "s3://b/1"),
        ({"image": IMAGES, "url": ["s3://b/1"]}, "image", "#0"),
        ({"image": IMAGES, "url": ["s3://b/1"]}, "of another source", "#0"),
    ],
    ids=str,
)
def test_a_parquet_file_is_a_list_unless_it_has_images_and_no_column_is_asked_for(
    columns: dict[str, list[Any]], column: str | None, found: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    scan = Scan([str(path)], column=column)
    assert [ref.uri.removeprefix(str(path)) for ref in scan] == [found]
    assert scan.prefixes == ((f"{path}#",) if found == "#0" else None)


def test_lists_beside_folders_are_one_scan_without_prefixes(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.jpg").touch()
    (tmp_path / "list.txt").write_bytes(b"s3://b/a.jpg\n")
    scan = Scan([str(tmp_path / "faces"), str(tmp_path / "list.txt")])
    assert {ref.uri for ref in scan} == {f"{tmp_path}/faces/a.jpg", "s3://b/a.jpg"}
    assert scan.prefixes is None


def test_an_endless_list_is_listed_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        number = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.number += 1
            line = b"s3://b/%d.jpg\n" % self.number
            buffer[: len(line)] = line
            return len(line)

    source = Endless()
    monkeypatch.setattr("producer.manifests.open_named", lambda uri: (source, "1"))
    images = list(islice(ManifestListing("s3://b/list.txt", Selection()), 10_000))
    assert images[-1].uri == "s3://b/10000.jpg"
    assert source.number < 10_000 + MAX_LINE_BYTES // 10
