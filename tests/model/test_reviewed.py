"""`model evaluate --reviewed`: a model is measured on what people have said of images."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from core.errors import FacesieveError, UsageError
from core.images import ImageRef
from core.settings import Settings, load_settings
from db.engine import open_engine
from db.filters import Filter
from db.review import Session, choose_images
from model.cli import app
from model.reviewed import reviewed_images
from tests import drawn
from tests.integration.builders import Books, manifest, scored

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The database of the data directory."""
    engine = open_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine, tmp_path: Path) -> Session:
    """A review of eight drawn images, of which those with even numbers are lighter."""
    folder = tmp_path / 'it\'s, "faces"'
    folder.mkdir()
    images = []
    for number in range(8):
        path = folder / f"{number}.png"
        drawn.draw(path, 0.4 if number % 2 else 0.6, number)
        images.append(ImageRef(str(path), "1-1", 1))
    books = Books(engine, manifest())
    books.store.register_model(books.model)
    books.save([scored(ref, number / 10) for number, ref in enumerate(images)])
    return Session(engine, choose_images(engine, Filter(), order="score"), "ann")


def label(session: Session, labels: dict[int, str]) -> None:
    """Review images by their numbers."""
    for number, said in labels.items():
        session.record(bytes.fromhex(session.item(number)["image"]), said, "")


def evaluate(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["evaluate", *words])


def test_a_model_is_measured_on_the_newest_reviews_in_any_split(settings: Settings, session: Session) -> None:
    drawn.make_bright_artifact(settings)
    label(session, dict.fromkeys(range(7), "real"))
    label(session, {1: "generated", 3: "generated", 5: "generated", 6: "unclear"})
    done = evaluate("bright", "--reviewed", "--no-robustness", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["metrics"]["real"], found["metrics"]["generated"]) == (3, 3)
    assert found["metrics"]["accuracy"]["value"] == 1
    assert (found["split"], found["failures"]) == ("all", [])
    assert found["data"] == f"reviewed images of {settings.sql_url}"
    assert "drawn with `db review --order random`" in done.stderr


@pytest.mark.parametrize("words", [("card",), ("card", "./faces", "--reviewed")])
def test_it_must_be_said_what_to_measure_on(words: tuple[str, ...]) -> None:
    error = evaluate(*words).exception
    assert isinstance(error, UsageError)
    assert "either DATA" in str(error)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "no image has been reviewed as real or generated"),
        ({0: "unclear"}, "no image has been reviewed as real or generated"),
        ({0: "generated", 1: "generated"}, "no image has been reviewed as real: "),
        ({0: "real", 1: "unclear"}, "no image has been reviewed as generated: "),
    ],
)
def test_reviews_that_nothing_can_be_measured_on_are_named(
    labels: dict[int, str], message: str, settings: Settings, session: Session
) -> None:
    label(session, labels)
    with pytest.raises(UsageError, match=message) as caught, reviewed_images(settings):
        pass
    assert "`db review`" in str(caught.value)


def test_a_database_that_cannot_be_used_is_said_as_db_says_it(tmp_path: Path) -> None:
    settings = load_settings(database_url=f"sqlite:///{tmp_path}/nowhere/x.db")
    with pytest.raises(FacesieveError, match="nowhere") as caught, reviewed_images(settings):
        pass
    assert caught.value.exit_code == 6


def test_a_folder_of_the_users_that_is_named_db_is_not_taken_for_ours(
    settings: Settings, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "__main__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    label(session, {0: "real", 1: "generated"})
    with reviewed_images(settings) as path:
        assert len(path.read_text().splitlines()) == 3
    assert not path.exists()
