"""What a URI names, and whether that may be read."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import load_settings
from core.uris import is_named_inside, member_uri, path_to_uri, split_member, uri_to_path

NAMES = st.binary(min_size=1, max_size=40).map(os.fsdecode)


@pytest.mark.parametrize(
    ("uri", "archive", "member"),
    [
        ("s3://b/shard-0001.tar#0003.jpg", "s3://b/shard-0001.tar", "0003.jpg"),
        ("/data/faces.ZIP#a/b.jpg", "/data/faces.ZIP", "a/b.jpg"),
        ("/data/faces.parquet#17", "/data/faces.parquet", "17"),
        ("/data/a.tar#b.tar#c.jpg", "/data/a.tar", "b.tar#c.jpg"),
        ("/data/a.tar#caf%E9%25.jpg", "/data/a.tar", "caf\udce9%.jpg"),
        ("/data/a.jpg#b", "/data/a.jpg#b", None),
        ("/data/a.tar#", "/data/a.tar#", None),
        ("/data/a.tar", "/data/a.tar", None),
    ],
)
def test_a_member_is_named_behind_its_archive(uri: str, archive: str, member: str | None) -> None:
    assert split_member(uri) == (archive, member)


@given(NAMES)
def test_every_member_has_a_uri_that_names_it_and_can_be_encoded(name: str) -> None:
    uri = member_uri("s3://bucket/a.tar", name)
    assert split_member(uri) == ("s3://bucket/a.tar", name)
    assert "\0" not in uri.encode().decode()


def test_a_file_whose_path_looks_like_a_member_is_no_member() -> None:
    path = "/data/a.tar#b.jpg"
    uri = path_to_uri(path)
    assert split_member(uri) == (uri, None)
    assert uri_to_path(uri) == path


@pytest.mark.parametrize(
    ("uri", "roots"),
    [
        ("s3://faces/a.jpg", ("s3://",)),
        ("s3://faces/a.jpg", ("s3://faces",)),
        ("s3://faces/2024/a.jpg", ("s3://faces/2024/",)),
        ("s3://faces/a.tar#../b.jpg", ("s3://faces",)),
        ("s3://faces/a..b/c.jpg", ("s3://faces",)),
        ("https://host:8443/a.jpg", ("https://host:8443",)),
        ("/data/a.zip#b.jpg", (Path("/data"),)),
    ],
)
def test_what_begins_with_a_root_may_be_read(uri: str, roots: tuple[Path | str, ...]) -> None:
    assert is_named_inside(uri, roots)


@pytest.mark.parametrize(
    ("uri", "roots"),
    [
        ("s3://faces-private/a.jpg", ("s3://faces",)),
        ("s3://faces/2024/../2023/a.jpg", ("s3://faces/2024",)),
        ("s3://faces/2024/%2E%2e/a.jpg", ("s3://faces/2024",)),
        ("s3://faces/..", ("s3://faces",)),
        ("gs://faces/a.jpg", ("s3://",)),
        ("http://host/a.jpg", ("https://",)),
        ("https://host:8443/a.jpg", ("https://host",)),
        ("https://host.evil/a.jpg", ("https://host",)),
        ("https://host@evil/a.jpg", ("https://host",)),
        ("s3://faces/a.jpg", (Path("/"),)),
        ("/data/a.jpg", ("s3://",)),
        ("/etc/a.zip#b.jpg", (Path("/data"),)),
        ("file:///data/..%2fetc/passwd", (Path("/data"),)),
        ("ftp://host/a.jpg", (Path("/"), "s3://", "https://")),
    ],
)
def test_what_leads_elsewhere_may_not(uri: str, roots: tuple[Path | str, ...]) -> None:
    assert not is_named_inside(uri, roots)


def test_roots_with_schemes_and_ports_are_told_from_separators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FACESIEVE_ROOTS", "/data:s3://faces/2024:https://host:8443/x:http://10.0.0.5:80:http://[::1]:80:/more"
    )
    roots = load_settings().roots
    assert roots == (
        Path("/data"),
        Path("/more"),
        "s3://faces/2024",
        "https://host:8443/x",
        "http://10.0.0.5:80",
        "http://[::1]:80",
    )
