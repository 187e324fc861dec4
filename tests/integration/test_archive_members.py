"""Commands on images that are members of archives: they are read again, or refused with a reason."""

from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import Engine, insert

import db.heat
from core.images import ImageRef
from core.members import Archive
from core.settings import load_settings
from core.uris import split_member
from db import schema
from db.doomed import Wanted
from db.export import open_selection
from db.export_images import copy_image, link_image, sort_images
from db.export_reviewed import write_reviewed
from db.filters import Filter
from db.heat import explain
from db.prune import open_pruning
from db.review_server import ReviewServer
from tests.archived import in_each_kind, listed, write_tar
from tests.integration.builders import Books, scored, write
from tests.integration.reporting import page_of
from tests.integration.reviewing import Visitor, served, session_of


def painted(shade: int) -> bytes:
    """Return a small image of one colour."""
    target = BytesIO()
    Image.new("RGB", (64, 48), (shade, 120, 40)).save(target, "PNG")
    return target.getvalue()


CONTENTS = [painted(shade) for shade in range(0, 250, 50)]


@pytest.fixture(params=["tar", "zip", "parquet"])
def members(request: pytest.FixtureRequest, tmp_path: Path, books: Books) -> list[ImageRef]:
    """Images in an archive of each kind, with verdicts."""
    refs = listed(in_each_kind(tmp_path, CONTENTS)[request.param])
    books.save([scored(ref) for ref in refs])
    return refs


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid to look through a whole archive: of a thousand images, that would be done a thousand times."""

    def find(self: Archive, name: str) -> int:
        raise AssertionError(name)

    monkeypatch.setattr(Archive, "_find", find)


def sort(
    engine: Engine, target: Path, prepare: Callable[..., Callable[[Path], None]]
) -> tuple[dict[str, bytes], set[str]]:
    """Export images; return the files, and the reasons of failures."""
    reasons: dict[str, str] = {}
    with open_selection(engine, Filter()) as selection:
        sort_images(
            selection, target, load_settings(), prepare, report=reasons.__setitem__, progress=lambda done, total: None
        )
    return {path.name: path.read_bytes() for path in target.glob("*/*")}, set(reasons.values())


@pytest.mark.usefixtures("no_search")
def test_members_are_copied_out_under_names_that_tell_where_they_come_from(
    members: list[ImageRef], engine: Engine, tmp_path: Path
) -> None:
    files, reasons = sort(engine, tmp_path / "sorted", copy_image)
    assert files == {Path(ref.uri).name: content for ref, content in zip(members, CONTENTS, strict=True)}
    assert reasons == set()


def test_members_with_names_that_no_file_can_have_are_copied_out_under_others(
    engine: Engine, books: Books, tmp_path: Path
) -> None:
    refs = listed(write_tar(tmp_path / "a.tar", {"a/..": b"1", "../.": b"2", "b.jpg//.": b"3", "..": b"4"}))
    books.save([scored(ref) for ref in refs])
    files, reasons = sort(engine, tmp_path / "sorted", copy_image)
    assert sorted(files.values()) == [b"1", b"2", b"3", b"4"]
    assert reasons == set()


def test_members_cannot_be_linked_to(members: list[ImageRef], engine: Engine, tmp_path: Path) -> None:
    files, reasons = sort(engine, tmp_path / "sorted", link_image)
    assert files == {}
    assert reasons == {"the URI names a member of an archive, not a file"}


@pytest.mark.usefixtures("no_search")
def test_a_report_shows_members(members: list[ImageRef], books: Books, engine: Engine) -> None:
    html = page_of(engine, books.scan_id).html
    assert html.count("data:image/webp") >= len(CONTENTS)
    assert "no such member" not in html


@pytest.mark.usefixtures("no_search")
def test_a_review_shows_members(members: list[ImageRef], engine: Engine) -> None:
    with served(ReviewServer(session_of(engine), load_settings(), address="127.0.0.1", port=0)) as server:
        for ref in members:
            answered = Visitor(server).get(f"/images/{ref.id.hex()}")
            assert (answered.status, answered.headers["content-type"]) == (200, "image/webp")


def test_a_manifest_of_files_for_a_training_cannot_hold_members(
    members: list[ImageRef], engine: Engine, books: Books, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(CONTENTS[0])
    plain = ImageRef(str(file), "1-1", 1)
    books.save([scored(plain)])
    said = {"label": "real", "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
    write(engine, insert(schema.review).values([{"image_id": ref.id, **said} for ref in (plain, members[0])]))
    reasons: dict[str, str] = {}
    placed = write_reviewed(engine, tmp_path / "manifest.csv", overwrite=False, report=reasons.__setitem__)
    assert (placed.labels["real"], placed.failed) == (1, 1)
    assert reasons == {members[0].uri: "the URI names a member of an archive, not a file"}


def test_members_are_not_explained_and_why_is_said(
    members: list[ImageRef], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(db.heat, "COMMAND", ("false",))
    found = explain([members[0].uri], tmp_path, load_settings())
    assert found.problems == [f"{members[0].uri}: the URI names a member of an archive, not a file"]


def test_members_are_missing_once_their_archive_is(members: list[ImageRef], engine: Engine) -> None:
    assert missing(engine) == 0
    Path(split_member(members[0].uri)[0]).unlink()
    assert missing(engine) == len(members)


def missing(engine: Engine) -> int:
    """Return how many verdicts would be pruned, as their files are gone."""
    with open_pruning(engine, Wanted(missing=True), lambda done: None) as pruning:
        return pruning.gathered.verdicts


def test_a_member_whose_archive_was_written_anew_is_a_failure_with_a_reason(
    engine: Engine, books: Books, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": b"1", "b.png": b"2"})
    books.save([scored(ref) for ref in listed(path)])
    write_tar(path, {"0.png": b"0" * 600, "b.png": b"2", "a.png": b"1"})
    files, reasons = sort(engine, tmp_path / "sorted", copy_image)
    assert files == {}
    assert {reason.partition(" at byte")[0] for reason in reasons} == {"the archive has no such member"}
    assert all("changed after it was listed" in reason for reason in reasons)
