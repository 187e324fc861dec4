"""The ways to verdicts: all lead to the same, by an index, and to an estimate where counting would take too long."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from core.verdicts import Status
from db import access, queries
from db.access import Access
from db.filters import Filter
from db.ledger import reading
from db.queries import ORDERS, estimate_verdicts, list_verdicts
from db.statistics import GROUPINGS, read_statistics
from tests.integration.builders import Books, failed, refs, scored


@pytest.fixture(params=["few", "many"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the verdicts of these tests count as few or as many: the ways to them differ, what is found must not."""
    if request.param == "many":
        for module in (access, queries):
            monkeypatch.setattr(module, "FEW", 2)
    return str(request.param)


@pytest.fixture
def models(new_books: Callable[..., Books], engine: Engine) -> list[Books]:
    """Three models whose thresholds differ, with scores on and beside them, of the same images; one is untrained."""
    scores = (0.0, 0.2, 0.2000001, 0.5, 0.5000001, 0.7, 0.7000001, 0.9, 1.0)
    found = []
    for name, trained, thresholds in (
        ("one", True, {"generated_below": 0.2, "real_above": 0.7}),
        ("two", True, {"generated_below": 0.5, "real_above": 0.5}),
        ("untrained", False, {"generated_below": 0.7, "real_above": 0.9}),
    ):
        books = new_books(name, trained=trained, **thresholds)
        images = refs(len(scores) + 2)
        outcomes = [scored(image, score) for image, score in zip(images, scores, strict=False)]
        books.save([*outcomes, failed(images[-2]), failed(images[-1], Status.NOT_FOUND)])
        found.append(books)
    return found


WANTED = (
    Filter(),
    *(Filter(label=label, model=model) for label, model in product(("real", "generated", "unsure"), (None, "one"))),
    Filter(label="unsure", min_score=0.5, max_score=0.7),
    Filter(label="real", min_score=0.95),
    Filter(label="real", path="/faces/0000[4-9].jpg"),
    Filter(label="generated", scan_id=2),
    Filter(scan_id=3, model="untrained"),
    Filter(scan_id=3, model="one"),
    Filter(status=Status.TRUNCATED),
    Filter(status=Status.TRUNCATED, min_score=0.1),
    Filter(status=Status.OK, model="two"),
    Filter(is_scored=False, model="two"),
    Filter(is_scored=True, scan_id=1, path="*1.jpg"),
    Filter(under=("/faces/00003.jpg", "/faces/00003.jpg", "/face/", "/faces/")),
    Filter(under=("/faces/00003.jpg", "/faces/00009.jpg"), label="real"),
)


def test_every_way_to_verdicts_leads_to_the_same(size: str, models: list[Books], engine: Engine) -> None:
    everything = list(list_verdicts(engine, Filter()))
    assert len(everything) == 33
    for wanted in WANTED:
        expected = [row for row in everything if passes(row, wanted)]
        for order in ORDERS:
            found = list(list_verdicts(engine, wanted, order=order))
            assert sorted(found, key=by_name) == sorted(expected, key=by_name), (wanted, order)
            assert [key_of(row, order) for row in found] == sorted(key_of(row, order) for row in expected)
            top = list(list_verdicts(engine, wanted, order=order, limit=3))
            assert [key_of(row, order) for row in top] == [key_of(row, order) for row in found[:3]]
        assert estimate_verdicts(engine, wanted) == (len(expected), False), wanted
        with reading(engine) as connection:
            scope = Access(connection, wanted).scope(is_exact=True)
            assert scope.tally(scope.label) == Counter((row["label"],) for row in expected), wanted


def passes(row: dict[str, Any], wanted: Filter) -> bool:
    """Tell whether a filter wants a row, by what the view says of it."""
    score = row["p_real"]
    return all(
        (
            wanted.label is None or (row["label"] or "").removesuffix(" (untrained)") == wanted.label,
            wanted.status is None or row["status"] == wanted.status,
            wanted.min_score is None or (score is not None and score >= wanted.min_score),
            wanted.max_score is None or (score is not None and score <= wanted.max_score),
            wanted.path is None or fnmatchcase(row["uri"], wanted.path),
            wanted.scan_id in (None, row["scan_id"]),
            wanted.model in (None, row["model"]),
            wanted.is_scored in (None, score is not None),
            not wanted.under
            or any(row["uri"].startswith(one) if one.endswith("/") else row["uri"] == one for one in wanted.under),
        )
    )


def by_name(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells a row from all others."""
    return row["uri"], row["model"]


def key_of(row: dict[str, Any], order: str) -> tuple[Any, ...]:
    """Return what an order goes by."""
    score = (row["p_real"] is None, (-1 if order == "-score" else 1) * (row["p_real"] or 0))
    return (*{"path": (), "time": (row["scored_at"],)}.get(order, score), row["uri"])


def test_sqlite_reads_the_beginning_of_a_list_from_an_index(
    models: list[Books], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL scans a table as small as this one")
    for module in (access, queries):
        monkeypatch.setattr(module, "FEW", 1)
    for wanted, order in (
        (Filter(), "path"),
        (Filter(), "score"),
        (Filter(), "-score"),
        (Filter(label="unsure"), "path"),
        (Filter(label="unsure"), "score"),
        (Filter(model="one"), "path"),
        (Filter(model="one"), "-score"),
        (Filter(scan_id=2), "path"),
        (Filter(scan_id=2, label="real"), "score"),
        (Filter(status=Status.OK), "path"),
        (Filter(path="/faces/*"), "path"),
        (Filter(under=("/faces/",), model="one", status=Status.OK), "score"),
    ):
        with plans(engine) as seen:
            assert next(list_verdicts(engine, wanted, order=order, limit=1))
        for unwanted in ("SCAN verdict", "SCAN image", "TEMP B-TREE FOR ORDER BY"):
            assert unwanted not in "\n".join(seen), (wanted, order)


def test_sqlite_reads_a_sample_by_the_keys_of_its_images(
    models: list[Books], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL scans a table as small as this one")
    for name, value in (("FEW", 1), ("EXACT", 1), ("SAMPLE", 300)):
        monkeypatch.setattr(access, name, value)
    for start in range(0, 3000, 1000):
        models[0].save([scored(image) for image in refs(1000, prefix="/more/", start=start)])
    filters = (Filter(), Filter(scan_id=1), Filter(path="*1.jpg", model="one"), Filter(under=("/more/", "/x/")))
    for by, wanted in product((None, *GROUPINGS), filters):
        with plans(engine) as seen:
            assert read_statistics(engine, wanted, by=by).sample
        unwanted = ("SCAN verdict", "SCAN image", "MULTI-INDEX OR")
        assert not [line for line in seen if line.startswith(unwanted)], (by, wanted)


def test_sqlite_counts_failures_in_their_own_index(
    models: list[Books], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL scans a table as small as this one")
    for wanted in (
        Filter(is_scored=False),
        Filter(status=Status.TRUNCATED),
        Filter(status=Status.CRASHED, model="one"),
    ):
        with plans(engine) as seen:
            read_statistics(engine, wanted)
            estimate_verdicts(engine, wanted)
        used = [line for line in seen if "USING COVERING INDEX ix_verdict_unscored (model_id=?" in line]
        assert len(used) >= 2 * len(models if wanted.model is None else "1"), seen
    monkeypatch.setattr(queries, "FEW", 0)
    for order in ("score", "time"):
        with plans(engine) as seen:
            assert len(list(list_verdicts(engine, Filter(status=Status.TRUNCATED), order=order))) == 3
        assert "SEARCH verdict USING INDEX ix_verdict_unscored (model_id=? AND status=?)" in seen, order


def test_postgresql_counts_failures_in_their_own_index(models: list[Books], engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has another test")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE verdict"))
        # What it would do with a table too large to be scanned.
        connection.execute(text(f'ALTER DATABASE "{engine.url.database}" SET enable_seqscan = off'))
    engine.dispose()
    with plans(engine) as seen:
        found = read_statistics(engine, Filter())
    assert (found.statuses["truncated"], found.statuses["not_found"]) == (3, 3)
    used = [line for line in seen if "Index Only Scan using ix_verdict_unscored on verdict" in line]
    assert len(used) >= len(models), seen


def test_sqlite_counts_a_scan_of_one_model_in_an_index(models: list[Books], engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL scans a table as small as this one")
    for model in (None, "two"):
        with plans(engine) as seen:
            found = read_statistics(engine, Filter(scan_id=models[1].scan_id, model=model, is_scored=True))
        assert found.labels == {"generated": 4, "real": 5}
        assert any("SEARCH verdict USING COVERING INDEX ix_verdict_scan_score" in line for line in seen), seen


@pytest.mark.parametrize(("label", "number"), [(None, 3000), ("real", 200)])
def test_a_look_at_few_images_spares_counting_up_to_a_limit(
    label: str | None, number: int, books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "EXACT", 1000)
    monkeypatch.setattr(access, "GLIMPSE", 0.25)
    monkeypatch.setattr(access, "SAMPLE", 1500)
    for start in range(0, 3000, 1000):
        books.save(
            [
                scored(image, 0.1 if start else 0.9 - index % 5 * 0.2)
                for index, image in enumerate(refs(1000, start=start))
            ]
        )
    wanted = Filter(label=label, max_score=None if label is None else 0.8)
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    estimate, is_estimate = estimate_verdicts(engine, wanted)
    assert not [statement for statement in asked if "LIMIT" in statement]
    assert (is_estimate, abs(estimate - number) < 200) == (label is None, True)


@contextmanager
def plans(engine: Engine) -> Iterator[list[str]]:
    """Collect how the database goes about each query within the block."""
    seen: list[str] = []

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        explained = cursor.connection.cursor()
        explained.execute(f"EXPLAIN {'QUERY PLAN ' if engine.dialect.name == 'sqlite' else ''}{statement}", parameters)
        seen.extend(str(row[-1]) for row in explained)

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def test_many_verdicts_are_estimated_and_few_are_counted(
    books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "EXACT", 1000)
    monkeypatch.setattr(access, "SAMPLE", 500)
    monkeypatch.setattr(queries, "FEW", 20)
    monkeypatch.setattr(access, "FEW", 20)
    for start in range(0, 3000, 1000):
        books.save([scored(image, 0.9 if start else 0.1) for image in refs(1000, start=start)])
    number, is_estimate = estimate_verdicts(engine, Filter())
    assert is_estimate
    assert 2600 < number < 3400
    number, is_estimate = estimate_verdicts(engine, Filter(label="real"))
    assert is_estimate
    assert 1700 < number < 2300
    assert estimate_verdicts(engine, Filter(label="generated")) == (1000, False)
    assert estimate_verdicts(engine, Filter(path="/faces/0000?.jpg"))[1]  # a wildcard so early says nothing
    books.save([scored(image) for image in refs(15, prefix="/faces/few/")])
    assert estimate_verdicts(engine, Filter(path="/faces/few/*[02468].jpg")) == (8, False)
    assert read_statistics(engine, Filter(), is_exact=True).verdicts == 3015
