"""Images of buckets, the web and archives among those of folders: what names them, and what they are counted under."""

import json

import pytest
from sqlalchemy import Engine

from core.images import ImageRef
from db.filters import Filter
from db.queries import list_verdicts
from db.statistics import read_statistics
from producer.sources import uri_prefixes
from producer.summary import summarise
from tests.integration.builders import Books, scored
from tests.integration.invoking import Db

NAMES = (
    "/photos/a.tar#1.jpg",
    "/photos/a.tar#real/2.jpg",
    "/photos/a/1.jpg",
    "/photos/b.jpg",
    "/photos/b/1.jpg",
    "/photos/c.jpg",
    "https://host/x/1.jpg",
    "s3://faces/2024.jpg",
    "s3://faces/2024/1.jpg",
    "s3://faces/2024/s.tar#1.jpg",
    "s3://faces/2024/s.tar#real/2.jpg",
    "s3://faces/2024/s.tar2#3.jpg",
    "s3://faces/2024/t.jpg",
    "s3://faces/20240/1.jpg",
)


@pytest.fixture
def named(books: Books, engine: Engine) -> Books:
    """A scan of images with these names."""
    books.save([scored(ImageRef(name, "1-1", 1)) for name in NAMES])
    return books


def below(prefix: str) -> list[str]:
    return [name for name in NAMES if name.startswith(prefix)]


def listed(engine: Engine, wanted: Filter) -> list[str]:
    return [row["uri"] for row in list_verdicts(engine, wanted)]


@pytest.mark.parametrize(
    ("under", "found"),
    [
        (("s3://faces/2024/",), below("s3://faces/2024/")),
        (("s3://faces/2024", "s3://faces/2024/"), below("s3://faces/2024/")),
        (("s3://faces/2024.jpg",), ["s3://faces/2024.jpg"]),
        (("s3://faces/2024/s.tar#",), below("s3://faces/2024/s.tar#")),
        (("s3://faces/2024/", "s3://faces/2024/s.tar#"), below("s3://faces/2024/")),
        (("/photos/a.tar#", "https://host/x/1.jpg"), [*below("/photos/a.tar#"), "https://host/x/1.jpg"]),
        (("s3://faces/2024/s.tar2#",), []),  # no archive, by its suffix
    ],
    ids=str,
)
def test_what_is_below_a_prefix_or_an_archive_is_found(
    under: tuple[str, ...], found: list[str], named: Books, engine: Engine
) -> None:
    assert listed(engine, Filter(under=under)) == found
    assert read_statistics(engine, Filter(under=under)).verdicts == len(found)


@pytest.mark.parametrize(
    "path", ["s3://faces/*", "s3://faces/2024/s.tar#*", "s3://faces/2024/s.tar#1.jpg", "https://*"]
)
def test_a_glob_finds_remote_names(path: str, named: Books, engine: Engine) -> None:
    assert listed(engine, Filter(path=path)) == below(path.rstrip("*"))


def test_images_of_a_folder_are_one_group_even_with_folders_among_them(named: Books, engine: Engine) -> None:
    found = read_statistics(engine, Filter(), by="folder", depth=1).groups
    assert {group.name: group.images for group in found} == {
        "/photos/a.tar#": 2, "/photos/a/": 1, "/photos/b/": 1, "/photos/": 2, "https://host/x/": 1,
        "s3://faces/2024/": 5, "s3://faces/20240/": 1, "s3://faces/": 1,
    }  # fmt: skip
    assert len(found) == 8


def test_an_archive_is_a_folder(named: Books, engine: Engine) -> None:
    found = read_statistics(engine, Filter(path="s3://*"), by="folder", depth=9).groups
    assert {group.name: group.images for group in found} == {
        "s3://faces/2024/s.tar#": 1, "s3://faces/2024/s.tar#real/": 1, "s3://faces/2024/": 3, "s3://faces/20240/": 1,
        "s3://faces/": 1,
    }  # fmt: skip
    assert len(found) == 5


@pytest.mark.parametrize(
    ("sources", "number"),
    [
        (["s3://faces/2024"], 5),
        (["s3://faces/2024/", "s3://faces/2024"], 5),
        (["s3://faces"], 7),
        (["s3://faces/2024.jpg"], 1),
        (["s3://faces/2024/s.tar"], 2),
        (["https://host/x/1.jpg"], 1),
        (["/photos/a.tar", "file:///photos/b.jpg"], 3),
    ],
    ids=str,
)
def test_a_summary_counts_what_is_below_its_sources(
    sources: list[str], number: int, named: Books, engine: Engine
) -> None:
    prefixes = tuple(prefix for source in sources for prefix in uri_prefixes(source))
    found = summarise(engine, named.scan_id, prefixes)
    assert found["labels"] == {"real": number}


def test_commands_take_remote_names(named: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Db(engine, monkeypatch)
    monkeypatch.chdir("/")
    for name in ("/photos/a.tar#real/2.jpg", "photos/a.tar#real/2.jpg"):
        assert json.loads(db.ok("show", "--json", name))["uri"] == "/photos/a.tar#real/2.jpg"
    assert json.loads(db.ok("show", "--json", "s3://faces/2024/s.tar#1.jpg"))["uri"] == "s3://faces/2024/s.tar#1.jpg"
    lines = db.ok("list", "--path", "s3://faces/2024/s.tar#*", "--csv").splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == below("s3://faces/2024/s.tar#")
