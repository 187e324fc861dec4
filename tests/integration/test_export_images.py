"""Images sorted into folders by their labels."""

import csv
import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from core.errors import UsageError
from core.images import ImageRef
from core.settings import load_settings
from core.uris import path_to_uri
from db import schema
from db.export import Placed, open_selection
from db.export_images import LONGEST_NAME, MANIFEST_COLUMNS, copy_image, link_image, sort_images
from db.filters import Filter
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE

HOW = pytest.mark.parametrize("prepare", [copy_image, link_image])


class Sorter:
    """Sorts images into a folder, and keeps what is reported.

    Attributes:
        target: the folder.
        failures: reasons by URI.
    """

    def __init__(self, engine: Engine, target: Path) -> None:
        self.target = target
        self.failures: dict[str, str] = {}
        self.progress: list[tuple[int, int]] = []
        self._engine = engine

    def run(
        self, prepare: Callable[..., Callable[[Path], None]], wanted: Filter | None = None, **settings: object
    ) -> Placed:
        """Sort what is wanted."""
        with open_selection(self._engine, wanted or Filter()) as selection:
            return sort_images(
                selection,
                self.target,
                load_settings(**settings),
                prepare,
                report=self.failures.__setitem__,
                progress=lambda done, total: self.progress.append((done, total)),
            )

    def manifest(self) -> dict[str, str]:
        """Return the URIs in the manifest, by file."""
        with (self.target / "manifest.csv").open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            assert tuple(rows.fieldnames or ()) == MANIFEST_COLUMNS
            return {row["file"]: row["uri"] for row in rows}

    def files(self) -> dict[str, bytes]:
        """Return the contents of the files in the folders."""
        return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in self.target.glob("*/*")}


@pytest.fixture
def sorter(engine: Engine, tmp_path: Path) -> Sorter:
    """Sorts into a folder that is not there yet."""
    return Sorter(engine, tmp_path / "new" / "sorted")


def make_image(path: Path | str, content: bytes = b"an image") -> ImageRef:
    """Make a file, and return its reference."""
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
    return ImageRef(path_to_uri(str(path)), "1-1", len(content))


@HOW
def test_images_come_into_the_folders_of_their_labels(
    prepare: Callable[..., Callable[[Path], None]], new_books: Callable[..., Books], sorter: Sorter, tmp_path: Path
) -> None:
    books = new_books(generated_below=0.3, real_above=0.7)
    images = [make_image(tmp_path / "faces" / f"{name}.jpg", name.encode()) for name in "abcd"]
    scores = (0.1, 0.5, 0.9, 0.8)
    books.save([*(scored(ref, score) for ref, score in zip(images, scores, strict=True)), failed(refs(1)[0])])
    placed = sorter.run(prepare)
    assert placed == Placed(Counter({"real": 2, "generated": 1, "unsure": 1}))
    expected = {"generated/a.jpg": b"a", "unsure/b.jpg": b"b", "real/c.jpg": b"c", "real/d.jpg": b"d"}
    assert sorter.files() == expected
    assert sorter.manifest() == {
        name: images[index].uri for index, name in enumerate(sorted(expected, key=lambda name: name[-5:]))
    }
    assert sorter.progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {path.is_symlink() for path in sorter.target.glob("*/*")} == {prepare is link_image}


def test_labels_of_random_weights_are_marked_in_the_manifest_but_not_in_folders(
    new_books: Callable[..., Books], sorter: Sorter, tmp_path: Path
) -> None:
    new_books("untrained", trained=False).save([scored(make_image(tmp_path / "a.jpg"))])
    assert sorter.run(copy_image).labels == {"real": 1}
    assert list(sorter.files()) == ["real/a.jpg"]
    assert "real/a.jpg,real (untrained),0.9," in (sorter.target / "manifest.csv").read_text()


@HOW
def test_images_of_one_name_get_digests_and_all_of_them_stay(
    prepare: Callable[..., Callable[[Path], None]], books: Books, sorter: Sorter, tmp_path: Path
) -> None:
    images = [make_image(tmp_path / str(number) / "a.jpg", str(number).encode()) for number in range(4)]
    first = min(images, key=lambda ref: ref.id)
    others = [ref for ref in images if ref is not first]
    # One whose own name is what another would get.
    taken = make_image(tmp_path / "taken" / f"a-{others[0].id[:4].hex()}.jpg", b"taken")
    books.save([scored(ref) for ref in (*images, taken)])
    assert sorter.run(prepare).labels == {"real": 5}
    assert sorted(sorter.files().values()) == [b"0", b"1", b"2", b"3", b"taken"]
    manifest = sorter.manifest()
    assert manifest["real/a.jpg"] == first.uri
    assert {manifest[f"real/a-{ref.id[:4].hex()}.jpg"] for ref in others[1:]} == {ref.uri for ref in others[1:]}
    for name, uri in manifest.items():
        assert (sorter.target / name).read_bytes() == Path(uri).read_bytes()


@HOW
def test_names_that_mean_harm_stay_as_they_are(
    prepare: Callable[..., Callable[[Path], None]], books: Books, sorter: Sorter, tmp_path: Path
) -> None:
    names = {name.replace("/", "_") for name in HOSTILE} | {"é" * 125 + ".jpg", "-rf.jpg", "画像.jpg"}
    images = [make_image(tmp_path / "faces" / name, name.encode()) for name in sorted(names)]
    books.save([scored(ref) for ref in images])
    assert sorter.run(prepare).labels == {"real": len(names)}
    assert sorter.files() == {f"real/{name}": name.encode() for name in names}
    assert sorter.manifest() == {f"real/{Path(ref.uri).name}": ref.uri for ref in images}


@HOW
def test_a_name_that_is_not_utf_8_is_percent_encoded_and_cut_where_that_makes_it_too_long(
    prepare: Callable[..., Callable[[Path], None]], books: Books, sorter: Sorter, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "faces")
    short = make_image(os.fsdecode(folder + b"/caf\xe9.jpg"), b"short")
    long = make_image(os.fsdecode(folder + b"/" + b"\xff" * 250 + b".jpg"), b"long")
    books.save([scored(short), scored(long)])
    assert sorter.run(prepare).failed == 0
    cut = ("%FF" * 84)[: LONGEST_NAME - len("-12345678.jpg")] + f"-{long.id[:4].hex()}.jpg"
    assert sorter.files() == {"real/caf%E9.jpg": b"short", f"real/{cut}": b"long"}
    assert sorter.manifest() == {"real/caf%E9.jpg": short.uri, f"real/{cut}": long.uri}


def test_a_name_of_255_bytes_that_is_taken_is_cut_between_characters(
    books: Books, sorter: Sorter, tmp_path: Path
) -> None:
    name = "x" + "é" * 125 + ".jpg"
    assert len(name.encode()) == LONGEST_NAME
    images = [make_image(tmp_path / str(number) / name, str(number).encode()) for number in range(2)]
    books.save([scored(ref) for ref in images])
    sorter.run(copy_image)
    second = max(images, key=lambda ref: ref.id)
    assert sorter.manifest()[f"real/x{'é' * 120}-{second.id[:4].hex()}.jpg"] == second.uri


@HOW
def test_images_that_cannot_be_had_are_counted_and_named_and_the_others_sorted(
    prepare: Callable[..., Callable[[Path], None]], books: Books, sorter: Sorter, tmp_path: Path
) -> None:
    good = make_image(tmp_path / "faces" / "good.jpg")
    outside = make_image(tmp_path / "elsewhere" / "a.jpg")
    escape = tmp_path / "faces" / "escape.jpg"
    escape.symlink_to(outside.uri)
    (tmp_path / "faces" / "folder.jpg").mkdir()
    bad = {
        str(tmp_path / "faces" / "gone\n.jpg"): "gone",
        str(tmp_path / "faces" / "folder.jpg"): "not a regular file" if prepare is copy_image else "gone",
        str(tmp_path / "faces" / ("long" * 1000)): "too long" if prepare is copy_image else "gone",
        outside.uri: "outside the allowed roots",
        str(escape): "outside the allowed roots",
        str(tmp_path / "faces" / ".." / "elsewhere" / "a.jpg"): "outside the allowed roots",
        "s3://bucket/a.jpg": "no local file" if prepare is link_image else "outside the allowed roots",
    }
    books.save([scored(good), *(scored(ImageRef(uri, "1-1", 1)) for uri in bad)])
    placed = sorter.run(prepare, roots=str(tmp_path / "faces"))
    assert placed == Placed(Counter({"real": 1}), failed=len(bad))
    assert list(sorter.files()) == ["real/good.jpg"]
    assert sorter.failures.keys() == bad.keys()
    for uri, reason in bad.items():
        assert reason in sorter.failures[uri]


def test_an_image_that_is_larger_than_allowed_is_not_copied(books: Books, sorter: Sorter, tmp_path: Path) -> None:
    ref = make_image(tmp_path / "a.jpg", b"12345")
    books.save([scored(ref)])
    assert sorter.run(copy_image, max_bytes=4).failed == 1
    assert sorter.failures[ref.uri] == "5 bytes, the limit is 4"


def test_an_image_counts_once_by_the_latest_score_of_a_model(
    new_books: Callable[..., Books], engine: Engine, sorter: Sorter, tmp_path: Path
) -> None:
    images = [make_image(tmp_path / f"{number}.jpg") for number in range(20)]
    old, new = new_books(), new_books(sha256="ff" * 32)
    new.save([scored(ref, 0.9) for ref in images])
    old.save([scored(ref, 0.1) for ref in images])  # afterwards, but not in the database's eyes:
    verdict = schema.verdict
    earlier = datetime.now(UTC) - timedelta(days=1)
    write(engine, update(verdict).where(verdict.c.model_id == old.model.id).values(scored_at=earlier))
    assert sorter.run(link_image).labels == {"real": 20}
    assert sorter.progress[-1] == (20, 20)


def test_images_of_several_models_are_not_mixed(
    new_books: Callable[..., Books], sorter: Sorter, tmp_path: Path
) -> None:
    ref = make_image(tmp_path / "a.jpg")
    new_books("one").save([scored(ref, 0.9)])
    new_books("two").save([scored(ref, 0.1)])
    with pytest.raises(UsageError, match="2 models have scored these images, one, two: choose one with --model"):
        sorter.run(copy_image)
    assert not sorter.target.exists()
    assert sorter.run(copy_image, Filter(model="two")).labels == {"generated": 1}


def test_a_folder_that_holds_something_is_refused_as_it_is(books: Books, sorter: Sorter, tmp_path: Path) -> None:
    books.save([scored(make_image(tmp_path / "a.jpg"))])
    sorter.run(copy_image)
    before = sorter.files()
    with pytest.raises(UsageError, match="is not empty"):
        sorter.run(copy_image)
    assert sorter.files() == before
    sorter.target = tmp_path / "a.jpg"
    with pytest.raises(UsageError, match="cannot be written"):
        sorter.run(copy_image)
