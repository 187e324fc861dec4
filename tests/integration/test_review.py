"""Reviews: which images are chosen, in which order, and what is written and taken back."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from db import schema
from db.filters import Filter
from db.review import choose_images
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.reviewing import HOSTILE, review_rows, session_of

SCORES = (0.02, 0.31, 0.45, 0.52, 0.6, 0.77, 0.99)


@pytest.fixture
def thresholded(new_books: Callable[..., Books]) -> Books:
    """Images 0 to 6 with ``SCORES``, of which 0.45 and 0.52 are unsure, and a failure."""
    books = new_books(generated_below=0.4, real_above=0.56)
    images = refs(8)
    books.save([*(scored(ref, score) for ref, score in zip(images, SCORES, strict=False)), failed(images[7])])
    return books


def numbers(engine: Engine, wanted: Filter | None = None, **options: Any) -> list[int]:
    """Return the numbers of the images that are chosen."""
    known = {ref.id: number for number, ref in enumerate(refs(8))}
    return [known[choice.image_id] for choice in choose_images(engine, wanted or Filter(), **options)]


# --- which images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("uncertain", [2, 3, 4, 1, 5, 0, 6]),  # away from 0.48
        ("score", [0, 1, 2, 3, 4, 5, 6]),
        ("-score", [6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_images_come_in_the_order_that_was_asked_for(
    order: str, expected: list[int], thresholded: Books, engine: Engine
) -> None:
    assert numbers(engine, order=order) == expected
    assert numbers(engine, order=order, limit=3) == expected[:3]


def test_a_random_order_begins_anywhere_and_leaves_nothing_out(thresholded: Books, engine: Engine) -> None:
    drawn = [numbers(engine, order="random") for _ in range(40)]
    assert {tuple(sorted(one)) for one in drawn} == {tuple(range(7))}
    assert len({one[0] for one in drawn}) > 1


FILTERS = pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(label="generated"), [1, 0]),
        (Filter(label="unsure"), [2, 3]),
        (Filter(label="real"), [4, 5, 6]),
        (Filter(min_score=0.31, max_score=0.6), [2, 3, 4, 1]),
        (Filter(path="*/0000[0-2].jpg"), [2, 1, 0]),
        (Filter(model="card"), [2, 3, 4, 1, 5, 0, 6]),
        (Filter(model="nobody"), []),
        (Filter(scan_id=999), []),
    ],
    ids=lambda value: str(value).replace("None", ""),
)


@FILTERS
def test_a_filter_restricts_the_images(wanted: Filter, expected: list[int], thresholded: Books, engine: Engine) -> None:
    assert numbers(engine, wanted) == expected


@FILTERS
@pytest.mark.parametrize("sample", [1, 4])
def test_a_filter_restricts_a_random_order_however_many_images_it_lets_through(
    wanted: Filter,
    expected: list[int],
    sample: int,
    thresholded: Books,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("db.review._SAMPLE", sample)
    assert sorted(numbers(engine, wanted, order="random")) == sorted(expected)


def test_an_image_of_two_models_comes_once_where_it_is_less_sure(
    thresholded: Books, new_books: Callable[..., Books], engine: Engine
) -> None:
    other = new_books("other")  # its thresholds are both 0.5
    other.save([scored(ref, score) for ref, score in zip(refs(3), (0.501, 0.99, 0.001), strict=True)])
    chosen = choose_images(engine, Filter())
    assert numbers(engine) == [0, 2, 3, 4, 1, 5, 6]
    assert [choice.model_id for choice in chosen[:2]] == [other.model.id, thresholded.model.id]
    assert numbers(engine, Filter(model="other")) == [0, 1, 2]


def test_images_with_a_review_are_passed_over_unless_they_are_asked_for(thresholded: Books, engine: Engine) -> None:
    session = session_of(engine)
    session.record(refs(8)[2].id, "real", "")
    session.record(refs(8)[5].id, "unclear", "")
    assert numbers(engine, order="score") == [0, 1, 3, 4, 6]
    assert numbers(engine, order="score", again=True) == [0, 1, 2, 3, 4, 5, 6]


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_review_is_a_row_with_the_reviewer_and_the_time(thresholded: Books, engine: Engine) -> None:
    session_of(engine, "zoë").record(refs(1)[0].id, "generated", HOSTILE)
    assert review_rows(engine) == [("generated", HOSTILE, "zoë")]
    with engine.connect() as connection:
        row = connection.execute(select(schema.review)).one()
    assert row.image_id == refs(1)[0].id
    assert abs(datetime.now(UTC) - row.reviewed_at) < timedelta(minutes=1)


def test_a_second_review_adds_a_row_and_counts(thresholded: Books, engine: Engine) -> None:
    session = session_of(engine)
    for label in ("generated", "real"):
        session.record(refs(1)[0].id, label, "")
    assert [label for label, *_ in review_rows(engine)] == ["generated", "real"]
    assert session.item(0)["review"]["label"] == "real"
    assert session.labels() == {"real": 1, "generated": 0, "unclear": 0}


def test_what_is_undone_is_the_newest_row_of_this_session_and_of_no_other(thresholded: Books, engine: Engine) -> None:
    ann, bob, later = (session_of(engine, name) for name in ("ann", "bob", "ann"))
    ann.record(refs(8)[0].id, "real", "")
    ann.record(refs(8)[1].id, "real", "")
    bob.record(refs(8)[1].id, "generated", "")
    assert later.undo() is None
    assert (ann.undo(), ann.undo(), ann.undo()) == (1, 0, None)
    assert review_rows(engine) == [("generated", "", "bob")]
    assert bob.labels()["generated"] == 1


def test_the_next_image_is_one_that_nobody_has_reviewed_and_after_the_last_comes_the_first(
    thresholded: Books, engine: Engine
) -> None:
    ann, bob = session_of(engine, "ann"), session_of(engine, "bob")
    ids = [ref.id for ref in refs(7)]
    assert ann.record(ids[0], "real", "") == 1
    assert bob.record(ids[1], "real", "") == 2
    assert ann.record(ids[2], "real", "") == 3
    assert ann.record(ids[6], "real", "") == 3
    assert ann.next_open(0) == 3
    for image_id in ids[3:5]:
        ann.record(image_id, "real", "")
    assert bob.record(ids[5], "real", "") == ann.total


def test_a_session_again_goes_through_all_images_once(thresholded: Books, engine: Engine) -> None:
    session_of(engine).record(refs(1)[0].id, "real", "")
    again = session_of(engine, again=True)
    places = [again.next_open(0)]
    while places[-1] < again.total:
        places.append(again.record(refs(8)[places[-1]].id, "unclear", ""))
    assert places == list(range(8))


def test_an_image_that_left_the_database_is_not_there(thresholded: Books, engine: Engine) -> None:
    session, ref = session_of(engine), refs(1)[0]
    write(
        engine,
        delete(schema.verdict).where(schema.verdict.c.image_id == ref.id),
        delete(schema.image).where(schema.image.c.id == ref.id),
    )
    with pytest.raises(KeyError):
        session.item(0)
    with pytest.raises(KeyError):
        session.record(ref.id, "real", "")
    assert review_rows(engine) == []


def test_hundreds_of_images_reviewed_by_another_are_leapt_over(books: Books, engine: Engine) -> None:
    images = refs(1203)
    books.save([scored(ref, number / 2000) for number, ref in enumerate(images)])
    session = session_of(engine)
    review = {"label": "real", "note": "", "reviewer": "bob", "reviewed_at": datetime.now(UTC)}
    write(engine, schema.review.insert().values([{"image_id": ref.id, **review} for ref in images[1:1202]]))
    assert session.record(images[0].id, "real", "") == 1202


def test_what_is_written_and_undone_at_once_is_written_and_undone_once(thresholded: Books, engine: Engine) -> None:
    session, ids = session_of(engine), [ref.id for ref in refs(7)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: session.record(ids[number % 7], "real", ""), range(30)))
        assert len(review_rows(engine)) == 30
        undone = list(pool.map(lambda _: session.undo(), range(32)))
    assert undone.count(None) == 2
    assert review_rows(engine) == []
