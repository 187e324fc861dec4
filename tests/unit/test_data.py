"""Labelled data sets, as folders and as manifests."""

from pathlib import Path

import pytest

from core.errors import SourceError
from model.data import SPLITS, read_samples


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _write_manifest(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_folders_are_a_data_set_and_a_folder_between_is_the_source(tmp_path: Path) -> None:
    _touch(tmp_path / "real" / "a.jpg")
    _touch(tmp_path / "real" / "notes.txt")
    _touch(tmp_path / "generated" / "gan" / "b.PNG")
    found = {(one.path.name, one.is_real, one.source) for one in read_samples(tmp_path)}
    assert found == {("a.jpg", True, "real"), ("b.PNG", False, "gan")}


def test_folders_named_after_splits_decide_the_split(tmp_path: Path) -> None:
    for split in SPLITS:
        for label in ("real", "generated"):
            _touch(tmp_path / split / label / "a.jpg")
    for split in SPLITS:
        assert {one.path.parent.parent.name for one in read_samples(tmp_path, split=split)} == {split}


def test_images_without_a_split_always_get_the_same_one_by_their_name(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        for number in range(300):
            _touch(tmp_path / folder / "real" / f"{number}.jpg")
        _touch(tmp_path / folder / "generated" / "a.jpg")
    here, there = (read_samples(tmp_path / folder) for folder in ("here", "there"))
    assert [one.split for one in here] == [one.split for one in there]
    shares = [sum(one.split == split for one in here) / len(here) for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.06)


def test_a_manifest_gives_split_source_generator_and_box(tmp_path: Path) -> None:
    _write_manifest(
        tmp_path,
        "file,split,label,source,generator,face_x1,face_y1,face_x2,face_y2\n"
        "r.jpg,val,real,lfw,,1,2,30,40\n"
        "g.jpg,val,generated,omi,StyleGAN2,,,,\n"
        "t.jpg,train,real,lfw,,1,2,30,40\n",
    )
    generated, real = read_samples(tmp_path, split="val")
    assert (real.source, real.generator, real.box) == ("lfw", "", (1, 2, 30, 40))
    assert (generated.generator, generated.box, generated.path) == ("StyleGAN2", None, tmp_path / "g.jpg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,real\n", "lacks the column file"),
        ("file,label\na.jpg,fake\n", "line 2: file 'a.jpg', label 'fake'"),
        ("file,label,split\na.jpg,real,dev\n", "split 'dev'"),
        ("file,label\n,real\n", "line 2: file ''"),
        ("file,label,face_x1\na.jpg,real,7\n", "needs four numbers"),
        ("file,label\na.jpg,real\n", "holds only real images"),
        ("file,label\n", "holds no images"),
    ],
)
def test_a_bad_manifest_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_samples(_write_manifest(tmp_path, text))


def test_a_manifest_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"file,label\n\xff\xfe\x00,real\n")
    with pytest.raises(SourceError, match="cannot be read"):
        read_samples(path)


def test_a_data_set_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere does not exist"):
        read_samples(tmp_path / "nowhere")
