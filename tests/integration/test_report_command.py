"""``db report``: what is explained, what is written, and what goes wrong in a line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from core.errors import UsageError
from core.images import ImageRef
from core.manifest import find_artifact, read_manifest
from core.settings import load_settings
from core.verdicts import Outcome, Status
from db import heat, schema
from tests.integration.builders import Books, failed, refs, write
from tests.integration.commands import Site
from tests.integration.reporting import details_of, page_of
from tests.pictured import make_explainer, save_face


@pytest.fixture
def explainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that explains every image but the bad ones."""
    monkeypatch.setattr(heat, "COMMAND", make_explainer(tmp_path))


@pytest.fixture
def shipped_books(new_books: Callable[..., Books]) -> Books:
    """A scan by the model that is at hand."""
    shipped = read_manifest(find_artifact("face-efficientnet", load_settings()))
    return new_books(shipped.name, **shipped.model_dump(exclude={"name"}))


@pytest.mark.usefixtures("explainer")
def test_the_most_generated_and_the_most_uncertain_are_explained(
    shipped_books: Books, engine: Engine, tmp_path: Path
) -> None:
    write(engine, update(schema.model).values(generated_below=0.5, real_above=0.5))
    shipped_books.save([save_face(tmp_path / f"{index}.jpg", index, index / 10) for index in range(11)])
    page = page_of(engine, shipped_books.scan_id, explained=2)
    explained = [one["p_real"] for one in details_of(page.html) if one["heat"]]
    assert explained[:2] == [0.0, 0.1]
    assert 0.5 in explained
    assert len(explained) == 4
    assert page.problems == []


@pytest.mark.usefixtures("explainer")
def test_what_cannot_be_explained_is_a_line(shipped_books: Books, engine: Engine, tmp_path: Path) -> None:
    good, bad = save_face(tmp_path / "good.jpg", 1, 0.1), save_face(tmp_path / "bad.jpg", 2, 0.2)
    far = Outcome(ImageRef("s3://bucket/a.jpg", "1-1", 1), Status.OK, 0.3)
    shipped_books.save([good, bad, far])
    page = page_of(engine, shipped_books.scan_id, explained=3)
    assert [bool(one["heat"]) for one in details_of(page.html)] == [True, False, False]
    assert page.problems == [f"{far.ref.uri}: the URI names no local file", f"{bad.ref.uri}: it is\ntruncated"]
    assert "Not explained: s3://bucket/a.jpg" in page.html


def test_a_command_that_fails_is_a_line(
    shipped_books: Books, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped_books.save([save_face(tmp_path / "a.jpg", 1, 0.1)])
    for code, line in (
        ("import sys; sys.exit('error: no TensorFlow')", "no TensorFlow"),
        ("", "model explain ended with 0"),
    ):
        monkeypatch.setattr(heat, "COMMAND", (sys.executable, "-c", code))
        page = page_of(engine, shipped_books.scan_id, explained=1)
        assert page.problems == [line]
        assert page.pictures == 1


def test_a_model_that_is_not_at_hand_explains_nothing(books: Books, engine: Engine, tmp_path: Path) -> None:
    books.save([save_face(tmp_path / "a.jpg", 1, 0.1)])
    assert page_of(engine, books.scan_id, explained=1).problems == [
        "nothing is explained: model card is not on this machine"
    ]


@pytest.fixture
def reported_site(tmp_path: Path, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An installation with a scan of three faces and a failure."""
    outcomes = [save_face(tmp_path / "faces" / f"{index}.jpg", index, index / 2) for index in range(3)]
    books.save([*outcomes, failed(refs(1)[0])])
    books.store.finish_scan(books.scan_id, "listed")
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    return Site(tmp_path)


def test_the_command_writes_the_latest_scan(reported_site: Site) -> None:
    found = json.loads(reported_site.ok("db", "report", "--json", "--title", "Faces of <May>"))
    path = reported_site.folder / "report.html"
    assert found == {"scan": 1, "out": "report.html", "bytes": path.stat().st_size, "pictures": 3}
    assert "<h1>Faces of &lt;May&gt;</h1>" in path.read_text()
    assert "wrote out.html: scan 1, 1 pictures" not in reported_site.ok("db", "report", 1, "--out", "out.html")
    assert "scan 1, 0 pictures" in reported_site.ok("db", "report", "--gallery", 0)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((99,), "no scan 99"),
        (("--out", "gone/report.html"), "does not exist"),
        (("--out", "faces"), "cannot be written"),
    ],
    ids=str,
)
def test_what_cannot_be_reported_ends_with_2(words: tuple[object, ...], reason: str, reported_site: Site) -> None:
    assert reason in reported_site.error(2, "db", "report", *words)


def test_a_missing_library_is_named_with_what_installs_it(reported_site: Site) -> None:
    (reported_site.folder / "jinja2.py").write_text("raise ModuleNotFoundError('no', name='jinja2')")
    assert "jinja2 is not installed: pip install 'facesieve[answers]'" in reported_site.error(2, "db", "report")


def test_without_a_scan_there_is_no_report(engine: Engine) -> None:
    with pytest.raises(UsageError, match="no scan 1"):
        page_of(engine, 1)
