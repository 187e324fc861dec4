"""Models side by side: figures of the images that both have scored, a list of those with two labels, a drawing."""

import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

import db.compare
from core.images import ImageRef
from db.compare import compare_models, read_points
from db.models import pick_model
from tests.integration.builders import Books, failed, refs, scored
from tests.integration.commands import HOSTILE
from tests.integration.invoking import Db

COMMON = 300


@pytest.fixture
def cli(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Db:
    """The command line."""
    return Db(engine, monkeypatch)


@pytest.fixture
def two(new_books: Callable[..., Books]) -> list[tuple[float, float]]:
    """Two models with ``COMMON`` images in common, and others; return the scores of both."""
    random = Random(5)
    scores = [(random.random(), random.random()) for _ in range(COMMON)]
    one, other = new_books("one", generated_below=0.4, real_above=0.6), new_books("other", trained=False)
    one.save([scored(ref, pair[0]) for ref, pair in zip(refs(COMMON), scores, strict=True)])
    other.save([scored(ref, pair[1]) for ref, pair in zip(refs(COMMON), scores, strict=True)])
    one.save([scored(ref) for ref in refs(20, "/one/")] + [failed(ref) for ref in refs(5, "/both/")])
    other.save([scored(ref) for ref in refs(30, "/other/")] + [scored(ref) for ref in refs(5, "/both/")])
    return scores


def test_figures_are_those_of_the_images_that_both_have_scored(two: list[tuple[float, float]], engine: Engine) -> None:
    one, other = pick_model(engine, "one"), pick_model(engine, "other")
    found = compare_models(engine, one, other, limit=7)
    pairs = Counter((one.label(first), other.label(second)) for first, second in two)
    assert {pair: number for pair, number in found.labels.items() if number} == pairs
    assert (found.images, found.compared, found.share) == (COMMON, COMMON, 1.0)
    assert found.agreement == sum(first == second for first, second in pairs.elements()) / COMMON
    assert found.correlation == pytest.approx(statistics.correlation(*zip(*two, strict=True)))
    assert found.mean_difference == pytest.approx(statistics.fmean(second - first for first, second in two))
    assert found.mean_absolute_difference == pytest.approx(statistics.fmean(abs(a - b) for a, b in two))
    farthest = sorted(
        (abs(a - b) for a, b in two if one.label(a) != other.label(b)),
        reverse=True,
    )
    assert [abs(a - b) for _, a, b in found.disagreements] == farthest[:7]


def test_many_images_are_compared_by_a_sample_that_says_so(
    two: list[tuple[float, float]], engine: Engine, cli: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.compare, "MOST_IMAGES", 100)
    monkeypatch.setattr(db.compare, "PROBE_IMAGES", 150)
    found = compare_models(engine, pick_model(engine, "one"), pick_model(engine, "other"), limit=COMMON)
    assert 50 < found.compared < 150
    assert 200 < found.images < 400
    assert found.share == pytest.approx(found.compared / found.images, rel=0.01)
    assert len(found.disagreements) < found.compared
    assert f"figures are of a random {found.compared} of them" in cli.ok("compare", "one", "other")
    assert cli.read("compare", "one", "other")["is_estimate"] is True


def test_points_are_all_or_a_random_sample(two: list[tuple[float, float]], engine: Engine) -> None:
    one, other = pick_model(engine, "one"), pick_model(engine, "other")
    points, is_sample = read_points(engine, one, other, limit=1000)
    assert (sorted(points), is_sample) == (sorted(two), False)
    points, is_sample = read_points(engine, one, other, limit=60)
    assert 30 < len(points) <= 60
    assert is_sample
    assert set(points) < set(two)


def test_a_comparison_prints_labels_figures_and_images(two: list[tuple[float, float]], cli: Db) -> None:
    shown = cli.ok("compare", "one", "other", "--limit", 3)
    assert f"both scored {COMMON} images" in shown
    assert "other: real (untrained)" in shown
    assert len([line for line in shown.splitlines() if "/faces/" in line]) == 3
    found = cli.read("compare", "one", "other", "--limit", 0)
    assert found["disagreements"] == []
    assert sum(row["images"] for row in found["labels"]) == COMMON


def test_several_models_are_compared_two_by_two(
    two: list[tuple[float, float]], new_books: Callable[..., Books], cli: Db
) -> None:
    new_books("third").save([scored(ref) for ref in refs(3)])
    lines = cli.ok("compare", "one", "other", "third", "--json").splitlines()
    pairs = [[model["model"] for model in json.loads(line)["models"]] for line in lines]
    assert pairs == [["one", "other"], ["one", "third"], ["other", "third"]]
    assert json.loads(lines[-1])["correlation"] is None, "the third gave one score only"


def test_models_without_an_image_in_common_say_so(new_books: Callable[..., Books], cli: Db) -> None:
    new_books("one").save([scored(ref) for ref in refs(3)])
    new_books("other").save([failed(ref) for ref in refs(3)])
    assert "have scored no image in common" in cli.ok("compare", "one", "other")
    found = cli.read("compare", "one", "other")
    assert (found["images"], found["agreement"], found["mean_difference"]) == (0, None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("one",), "1 model given: name two or more"),
        (("one", "one"), "name one model twice"),
        (("one", "nobody"), "no model nobody"),
        (("one", "other", "one", "--plot", "x.png"), "3 models given: name two"),
        (("one", "other", "--plot", "x.pdf"), "x.pdf ends in none of .png, .svg"),
        (("one", "other", "--plot", "/no/where/x.png"), "x.png cannot be written: No such file"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused(
    words: tuple[str, ...], expected: str, two: list[tuple[float, float]], cli: Db
) -> None:
    assert expected in cli.error(2, "compare", *words)


@pytest.mark.parametrize(("name", "begins"), [("plot.png", b"\x89PNG"), ("plot.SVG", b"<?xml")])
def test_scores_are_drawn_in_either_format(
    name: str, begins: bytes, two: list[tuple[float, float]], cli: Db, tmp_path: Path
) -> None:
    out = tmp_path / name
    cli.ok("compare", "one", "other", "--plot", out)
    assert cli.notes == [f"note: drew {COMMON} images: {out}"]
    content = out.read_bytes()
    assert content.startswith(begins)
    if name.endswith("SVG"):
        assert b"p_real of one" in content
        assert b"labels differ: " in content


def test_a_sample_is_drawn_as_one(
    two: list[tuple[float, float]], cli: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.cli_compare.MOST_POINTS", 50)
    cli.ok("compare", "one", "other", "--plot", tmp_path / "plot.svg")
    assert "images, a random sample" in cli.notes[0]
    assert b"images, a random sample" in (tmp_path / "plot.svg").read_bytes()


def test_without_matplotlib_the_extra_is_named(
    two: list[tuple[float, float]], cli: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "db.scatter", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'facesieve[train]'" in cli.error(2, "compare", "one", "other", "--plot", "x.png")


def test_hostile_names_are_shown_and_do_nothing(new_books: Callable[..., Books], cli: Db) -> None:
    images = [ImageRef(f"/{name}", "1-1", 1) for name in HOSTILE]
    new_books("one").save([scored(ref, 0.1) for ref in images])
    new_books("other").save([scored(ref, 0.9) for ref in images])
    shown = cli.ok("compare", "one", "other")
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "[red]markup[/red].jpg" in shown
    assert {row["uri"] for row in cli.read("compare", "one", "other")["disagreements"]} == {ref.uri for ref in images}
