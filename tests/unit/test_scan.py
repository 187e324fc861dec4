"""Which files of a source are taken for images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import SourceError
from core.selection import Selection
from producer.scan import Scan
from tests.archived import write_tar, write_zip

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make a folder with these empty files."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(folder: Path, limit: int | None = None, **options: Any) -> set[str]:
    """Return what a scan of the folder finds, relative to it."""
    return {str(Path(ref.uri).relative_to(folder)) for ref in Scan([str(folder)], Selection(**options), limit=limit)}


def test_images_are_told_by_their_suffix_in_any_case(tree: Tree) -> None:
    folder = tree("a.jpg", "b.JPEG", "c.WebP", "d.txt", "e", "f.jpg.part", "jpg", ".jpg", "sub/g.png")
    assert names(folder) == {"a.jpg", "b.JPEG", "c.WebP", "sub/g.png"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"include": ["*.png"]}, ["b.png", "sub/d.png"]),
        ({"include": ["*.dat"]}, ["e.dat"]),
        ({"include": ["*.png", "a*"]}, ["a.jpg", "b.png", "sub/d.png"]),
        ({"include": ["sub/*"]}, ["sub/c.jpg", "sub/d.png"]),
        ({"include": ["*.PNG"]}, []),
        ({"exclude": ["*.png"]}, ["a.jpg", "sub/c.jpg"]),
        ({"exclude": ["sub/*"]}, ["a.jpg", "b.png"]),
        ({"exclude": ["sub"]}, ["a.jpg", "b.png", "sub/c.jpg", "sub/d.png"]),
        ({"include": ["*.png"], "exclude": ["sub/*"]}, ["b.png"]),
        ({"include": ["[ab].*"]}, ["a.jpg", "b.png"]),
    ],
    ids=str,
)
def test_globs_choose_by_name_or_with_a_slash_by_path(
    options: dict[str, list[str]], found: list[str], tree: Tree
) -> None:
    folder = tree("a.jpg", "b.png", "sub/c.jpg", "sub/d.png", "e.dat")
    if found:
        assert names(folder, **options) == set(found)
    else:
        with pytest.raises(SourceError):
            names(folder, **options)


def test_files_with_other_names_are_counted(tree: Tree) -> None:
    scan = Scan([str(tree("a.jpg", "b.txt", "sub/c.txt", ".hidden.txt"))])
    assert len(list(scan)) == 1
    assert scan.ignored == 2


def test_several_sources_are_one_scan(tree: Tree) -> None:
    folder = tree("a/1.jpg", "a/2.txt", "b/3.jpg", "b/4.txt")
    scan = Scan([str(folder / "a"), str(folder / "b")])
    assert len(list(scan)) == 2
    assert scan.ignored == 2


def test_one_file_is_taken_whatever_its_name(tree: Tree) -> None:
    file = tree("a.dat") / "a.dat"
    assert [ref.uri for ref in Scan([str(file)])] == [str(file)]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_than_the_limit_is_listed(limit: int, tree: Tree) -> None:
    assert len(names(tree("a.jpg", "b.jpg", "c.jpg"), limit=limit)) == limit


def test_hidden_entries_are_passed_over_even_if_a_glob_would_take_them(tree: Tree) -> None:
    assert names(tree(".git/a.jpg", ".b.jpg", "c.jpg"), include=["*"]) == {"c.jpg"}


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"no images in {tmp_path}$"):
        Scan([str(tmp_path)])


def test_a_folder_without_images_is_an_error_that_tells_of_other_files(tree: Tree) -> None:
    with pytest.raises(SourceError, match="2 files were passed over, see --include"):
        Scan([str(tree("a.txt", "b.txt"))])


def test_a_source_that_does_not_exist_is_an_error_even_beside_one_that_does(tree: Tree) -> None:
    folder = tree("a.jpg")
    with pytest.raises(SourceError, match="gone cannot be listed"):
        Scan([str(folder), str(folder / "gone")])


def test_an_empty_folder_beside_one_with_images_is_no_error(tree: Tree) -> None:
    folder = tree("full/a.jpg")
    (folder / "empty").mkdir()
    assert len(list(Scan([str(folder / "empty"), str(folder / "full")]))) == 1


def test_the_images_of_shards_are_those_in_the_archives_of_a_folder(tree: Tree) -> None:
    folder = tree("a.jpg", "sub/b.txt")
    write_tar(folder / "one.tar", {"1.jpg": b"1", "2.txt": b"2"})
    write_zip(folder / "sub" / "two.zip", {"3.jpg": b"3"})
    scan = Scan([str(folder)], has_shards=True)
    assert {ref.uri for ref in scan} == {f"{folder}/one.tar#1.jpg", f"{folder}/sub/two.zip#3.jpg"}
    assert scan.ignored == 3
    assert [ref.uri for ref in Scan([str(folder)])] == [f"{folder}/a.jpg"]
