"""Models and their thresholds: chosen, kept, taken back, and what they relabel."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update

from core.errors import UsageError
from core.manifest import Manifest
from db import schema
from db.models import Model, count_relabelled, pick_model, read_models
from tests.integration.builders import Books, failed, manifest, refs, scored, write
from tests.integration.invoking import Db

SCORES = (0.0, 0.1, 0.1999, 0.2, 0.3, 0.5, 0.5001, 0.8, 0.8001, 1.0)
CALIBRATION = {
    "slope": 1, "intercept": 0, "images": 10, "source": "a test", "false_positive_rate": 0.05,
    "operating_points": {"0.001": 0.02, "0.01": 0.2, "0.1": 0.7},
}  # fmt: skip


@pytest.fixture
def db(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Db:
    """The command line, with a data directory of its own."""
    monkeypatch.setenv("FACESIEVE_DATA_DIR", str(tmp_path / "home"))
    return Db(engine, monkeypatch)


@pytest.fixture
def calibrated(new_books: Callable[..., Books]) -> Books:
    """A scan with ``SCORES`` by a model that was calibrated, and a failure."""
    books = new_books(calibration=CALIBRATION)
    images = refs(len(SCORES) + 1)
    books.save([*(scored(ref, p) for ref, p in zip(images, SCORES, strict=False)), failed(images[-1])])
    return books


def labels(engine: Engine) -> list[str]:
    """Return the label of each scored image, as the view has it."""
    view = schema.labelled_verdict
    with engine.connect() as connection:
        return list(
            connection.execute(select(view.c.label).where(view.c.p_real.is_not(None)).order_by(view.c.uri)).scalars()
        )


def install(model: Manifest, home: Path) -> None:
    """Put the manifest of an artifact where it is looked for."""
    folder = home / "models" / model.name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(model.model_dump_json())


@pytest.mark.parametrize("before", [(0.5, 0.5), (0.2, 0.8), (0.0, 1.0), (0.1, 0.1)])
@pytest.mark.parametrize("after", [(0.5, 0.5), (0.2, 0.8), (0.3, 0.3), (1.0, 1.0), (0.0, 0.0), (0.8, 1.0)])
def test_what_a_change_relabels_is_what_the_view_says(
    before: tuple[float, float], after: tuple[float, float], calibrated: Books, engine: Engine, db: Db
) -> None:
    words = ("--generated-below", "--real-above")
    db.ok("threshold", "card", words[0], before[0], words[1], before[1])
    old, was = pick_model(engine, "card"), labels(engine)
    assert was == [old.label(score) for score in SCORES]
    counted = count_relabelled(engine, old, old.with_thresholds(*after))
    found = db.read("threshold", "card", words[0], after[0], words[1], after[1])
    changed = Counter(pair for pair in zip(was, labels(engine), strict=True) if pair[0] != pair[1])
    assert counted == changed
    assert {(row["from"], row["to"]): row["images"] for row in found["relabelled"]} == changed


def test_a_change_reads_nothing_but_the_index_of_scores(calibrated: Books, engine: Engine) -> None:
    statements: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
    old = pick_model(engine, "card")
    statements.clear()
    count_relabelled(engine, old, old.with_thresholds(0.2, 0.8))
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    expected = "COVERING INDEX" if engine.dialect.name == "sqlite" else "Index Only Scan using"
    counts = [(query, values) for query, values in statements if "count" in query]
    assert len(counts) == 2
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # it would read ten rows as a whole
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        for query, values in counts:
            plan = "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {query}", values))
            assert f"{expected} ix_verdict_model_score" in plan


def test_chosen_thresholds_outlast_a_new_worker_until_they_are_reset(
    calibrated: Books, engine: Engine, db: Db, tmp_path: Path
) -> None:
    install(calibrated.model, tmp_path / "home")
    db.ok("threshold", "card", "--generated-below", 0.2, "--real-above", 0.8)
    calibrated.store.register_model(calibrated.model)
    chosen = pick_model(engine, "card")
    assert (chosen.generated_below, chosen.real_above) == (0.2, 0.8)
    assert chosen.thresholds_set_at is not None
    shown = db.ok("threshold", "card", "--reset")
    assert "2 images: unsure -> generated" in shown
    assert "2 images: unsure -> real" in shown
    back = pick_model(engine, "card")
    assert (back.generated_below, back.real_above, back.thresholds_set_at) == (0.5, 0.5, None)


@pytest.mark.parametrize("other", [None, {"sha256": "f" * 64}])
def test_a_reset_without_the_artifact_leaves_it_to_the_next_worker(
    other: dict[str, str] | None, calibrated: Books, engine: Engine, db: Db, tmp_path: Path
) -> None:
    if other:
        install(manifest("card", **other), tmp_path / "home")
    db.ok("threshold", "card", "--generated-below", 0.2, "--real-above", 0.8)
    db.ok("threshold", "card", "--reset")
    assert db.notes == [
        "note: the artifact is not on this machine: the next worker that starts with it brings its thresholds"
    ]
    assert pick_model(engine, "card").generated_below == 0.2
    calibrated.store.register_model(calibrated.model)
    assert pick_model(engine, "card").generated_below == 0.5


@pytest.mark.parametrize(
    ("rate", "thresholds", "stored"),
    [(0.01, (0.2, 0.5), None), (0.05, (0.2, 0.5), "0.01"), (0.001, (0.02, 0.5), None), (0.5, (0.7, 0.7), "0.1")],
)
def test_a_rate_means_the_nearest_stored_one_that_is_no_higher(
    rate: float, thresholds: tuple[float, float], stored: str | None, calibrated: Books, engine: Engine, db: Db
) -> None:
    db.ok("threshold", "card", "--fpr", rate)
    model = pick_model(engine, "card")
    assert (model.generated_below, model.real_above) == thresholds
    note = [f"note: the nearest stored rate that is no higher than {rate:g} is {stored}"] if stored else []
    assert db.notes == note


def test_a_rate_below_all_stored_ones_is_refused_with_those(calibrated: Books, db: Db) -> None:
    assert db.error(2, "threshold", "card", "--fpr", 0.0001).endswith("it has 0.001, 0.01, 0.1")


def test_a_model_that_was_never_calibrated_has_no_rates(books: Books, db: Db) -> None:
    assert "run `model calibrate`" in db.error(2, "threshold", "card", "--fpr", 0.01)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--generated-below", "nan"), "--generated-below nan is not between 0 and 1"),
        (("--real-above", 1.5), "--real-above 1.5 is not between 0 and 1"),
        (("--generated-below", -1), "is not between"),
        (("--generated-below", 0.7), "generated-below 0.7 is above real-above 0.5"),
        (("--fpr", 0.01, "--real-above", 0.1), "generated-below 0.2 is above real-above 0.1"),
        (("--fpr", 0.01, "--generated-below", 0.1), "--generated-below and --fpr do not go together"),
        (("--reset", "--real-above", 0.1), "--reset and --real-above do not go together"),
    ],
    ids=str,
)
def test_thresholds_that_cannot_be_are_refused_and_nothing_changes(
    words: tuple[object, ...], expected: str, calibrated: Books, engine: Engine, db: Db
) -> None:
    before = read_models(engine)
    assert expected in db.error(2, "threshold", "card", *words)
    assert read_models(engine) == before


def test_without_options_the_thresholds_are_shown_and_stay(calibrated: Books, engine: Engine, db: Db) -> None:
    before = read_models(engine)
    shown = db.ok("threshold", "card")
    assert "generated at or below 0.5, else real; the artifact's" in shown
    assert "--fpr 0.01: generated at or below 0.2" in shown
    assert db.read("threshold", "card")["operating_points"] == CALIBRATION["operating_points"]
    assert read_models(engine) == before


def test_labels_of_an_untrained_model_say_so(new_books: Callable[..., Books], db: Db) -> None:
    new_books("untrained", trained=False).save([scored(ref, 0.4) for ref in refs(3)])
    shown = db.ok("threshold", "untrained", "--generated-below", 0.1)
    assert "3 images: generated (untrained) -> unsure (untrained)" in shown


def test_a_name_means_its_newest_model_and_an_id_may_be_cut_short(
    new_books: Callable[..., Books], engine: Engine
) -> None:
    old, new = new_books("card", sha256="1" * 64), new_books("card", sha256="2" * 64)
    other = new_books("other")
    assert pick_model(engine, "card").id == new.model.id
    for books in (old, new, other):
        assert pick_model(engine, books.model.id).id == books.model.id
        assert pick_model(engine, books.model.id[:8]).id == books.model.id
    with pytest.raises(UsageError, match="no model nobody; it has card, other"):
        pick_model(engine, "nobody")
    with pytest.raises(UsageError, match="has no model"):
        pick_model(engine, old.model.id[:3])


def test_the_beginning_of_two_ids_is_refused_with_both(new_books: Callable[..., Books], engine: Engine) -> None:
    for number in "12":
        books = new_books("card", sha256=number * 64)
        write(engine, update(schema.model).where(schema.model.c.id == books.model.id).values(id=f"abcdef{number}"))
    with pytest.raises(UsageError, match=r"abcd is the beginning of 2 ids: .*abcdef1"):
        pick_model(engine, "abcd")


def test_a_database_without_models_says_where_they_come_from(engine: Engine, db: Db) -> None:
    assert "a worker enters its model" in db.ok("models")
    assert "a worker enters its model" in db.error(2, "threshold", "card")


def test_models_are_listed_with_what_they_did_and_who_chose_their_thresholds(
    calibrated: Books, new_books: Callable[..., Books], db: Db
) -> None:
    calibrated.save([scored(ref) for ref in refs(4, start=100)])
    new_books("zz", trained=False)
    db.ok("threshold", "zz", "--real-above", 0.9)
    db.ok("prune", "--failed", "--yes")
    first, second = db.read("models")
    counts = ("scored", "failed", "pruned")
    assert [first[name] for name in (*counts, "thresholds_of")] == [len(SCORES) + 4, 1, 1, "artifact"]
    assert [second[name] for name in (*counts, "thresholds_of", "trained")] == [0, 0, 0, "db threshold", False]
    shown = db.ok("models").splitlines()
    assert shown[1].split()[:3] == ["card", calibrated.model.id[:12], "yes"]
    assert shown[2].split()[0] == "zz"


def test_operating_points_survive_the_database(calibrated: Books, engine: Engine) -> None:
    model: Model = pick_model(engine, "card")
    assert model.operating_points == {0.001: 0.02, 0.01: 0.2, 0.1: 0.7}
    with engine.connect() as connection:
        assert json.loads(connection.execute(select(schema.model.c.operating_points)).scalar_one())
