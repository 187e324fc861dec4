"""A filter of any values gives the rows that a predicate in Python gives, on either database, or a usage error."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Row, select

from core.errors import FacesieveError, UsageError
from core.images import ImageRef
from core.settings import load_settings
from core.verdicts import Outcome, Status
from db import schema
from db.engine import open_engine
from db.filters import VIEW, Filter, restrict
from db.labels import LABELS
from db.ledger import read_ledger
from db.queries import ORDERS, estimate_verdicts, list_verdicts
from db.store import Store
from tests.integration.builders import Books, failed, manifest, scored

on_a_database = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30, database=None
)
NAMES = (
    "/faces/a.jpg", "/faces/b/1.jpg", "/faces/b/2.PNG", "/faces/100%_[red]^.jpg", "/faces/ü/é.jpg", "/faces/new\nline",
    "s3://b/a.tar#1.jpg", "s3://b/a.tar#x/2.jpg", "s3://b/a.tarball", "file:///caf%E9.jpg", "/faces/\\d+.jpg", "/z",
)  # fmt: skip
PLACES = ("/faces/", "/faces/b/", "s3://b/", "s3://b/a.tar#", "/z", "/faces/a.jpg")
FAILURES = (Status.TRUNCATED, Status.UNREADABLE, Status.NO_FACE)
GLOBS = st.text("*?[]!-^\\/.abjpg#\nü%1", max_size=12) | st.sampled_from(NAMES)
SCORES = st.none() | st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
FILTERS = st.builds(
    Filter,
    label=st.none() | st.sampled_from(LABELS),
    status=st.none() | st.sampled_from(Status),
    min_score=SCORES,
    max_score=SCORES,
    path=st.none() | GLOBS,
    scan_id=st.none() | st.integers(0, 3),
    model=st.none() | st.sampled_from(["card", "other", "none"]),
    under=st.lists(st.sampled_from(PLACES), max_size=3).map(tuple),
    is_scored=st.none() | st.booleans(),
)  # fmt: skip


@pytest.fixture
def filled(database_url: str) -> Iterator[Engine]:
    """Two models with two scans of all names; a third of the images has no score."""
    engine = open_engine(load_settings(database_url=database_url))
    for model in (manifest("card", real_above=0.7, generated_below=0.3), manifest("other", trained=False)):
        books = Books(engine, model)
        books.store.register_model(model)
        refs = [ImageRef(uri, "1-1", 1) for uri in NAMES]
        books.run(books.queue(refs), [_outcome(ref, number) for number, ref in enumerate(refs)])
    yield engine
    engine.dispose()


def _outcome(ref: ImageRef, number: int) -> Outcome:
    return failed(ref, FAILURES[number // 3 % 3]) if number % 3 == 0 else scored(ref, number / (len(NAMES) - 1))


def passes(row: Row[Any], wanted: Filter) -> bool:
    """Tell in Python what a filter asks."""
    score = row.p_real
    tests = {
        "label": lambda label: row.label is not None and row.label.removesuffix(" (untrained)") == label,
        "status": lambda status: row.status == status,
        "min_score": lambda least: score is not None and score >= least,
        "max_score": lambda most: score is not None and score <= most,
        "path": lambda glob: fnmatchcase(row.uri, glob),
        "scan_id": lambda scan: row.scan_id == scan,
        "model": lambda model: row.model == model,
        "under": lambda places: not places or any(_is_under(row.uri, place) for place in places),
        "is_scored": lambda is_scored: (score is not None) == is_scored,
    }
    return all(test(asdict(wanted)[name]) for name, test in tests.items() if asdict(wanted)[name] is not None)


def _is_under(uri: str, place: str) -> bool:
    return uri.startswith(place) if place.endswith(("/", ".tar#")) else uri == place


@given(FILTERS, st.sampled_from(sorted(ORDERS)))
@example(Filter(path="[z-a]"), "path")
@example(Filter(path="[]]"), "path")
@example(Filter(path="[!^-\\]*"), "path")
@on_a_database
def test_a_filter_gives_the_rows_that_python_gives(filled: Engine, wanted: Filter, order: str) -> None:
    with filled.connect() as connection:
        rows = connection.execute(select(VIEW)).all()
        found = connection.execute(restrict(select(VIEW), wanted, filled)).all()
    assert len(rows) == 2 * len(NAMES)
    expected = sorted((row.uri, row.model) for row in rows if passes(row, wanted))
    assert sorted((row.uri, row.model) for row in found) == expected
    assert sorted((row["uri"], row["model"]) for row in list_verdicts(filled, wanted, order=order)) == expected
    assert estimate_verdicts(filled, wanted) == (len(expected), False)


ANY_TEXT = (
    st.none() | st.text(max_size=20) | st.binary(max_size=20).map(lambda raw: raw.decode(errors="surrogateescape"))
)


@given(
    ANY_TEXT,
    ANY_TEXT,
    st.none() | st.floats(),
    st.none() | st.floats(),
    st.none() | st.integers(-(2**70), 2**70),
)
@example(path="[" * 4000, model=None, least=None, most=None, scan=None)
@example(path="*a" * 2000, model=None, least=None, most=None, scan=None)
@example(path="\0", model=None, least=None, most=None, scan=None)
@example(path=None, model="\0", least=None, most=None, scan=None)
@example(path=None, model=None, least=float("nan"), most=float("inf"), scan=None)
@example(path=None, model=None, least=None, most=None, scan=2**40)
@example(path=None, model=None, least=None, most=None, scan=2**70)
@on_a_database
def test_a_filter_of_any_values_is_answered_or_a_usage_error(
    filled: Engine, path: str | None, model: str | None, least: float | None, most: float | None, scan: int | None
) -> None:
    with suppress(UsageError):
        wanted = Filter(path=path, model=model, min_score=least, max_score=most, scan_id=scan)
        assert len(list(list_verdicts(filled, wanted))) <= 2 * len(NAMES)


@pytest.mark.parametrize("architecture", ["", "x" * 64, "é" * 64, "two\nlines"])
def test_every_architecture_that_a_manifest_may_name_can_be_registered(architecture: str, engine: Engine) -> None:
    Store(engine).register_model(manifest("card", architecture=architecture))
    with engine.connect() as connection:
        assert connection.execute(select(schema.model.c.architecture)).scalar_one() == architecture


@pytest.mark.parametrize("number", [2**31, 2**63, 2**70])
def test_a_scan_of_an_impossible_number_is_an_error_in_one_line(number: int, engine: Engine) -> None:
    with pytest.raises(FacesieveError) as caught:
        read_ledger(engine, number)
    assert "\n" not in str(caught.value)
