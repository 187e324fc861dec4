"""The conductor of one job, with a fetcher and a predictor that a test can see through."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import StorageError
from core.images import ImageRef
from core.verdicts import Face, Outcome, Status
from db.store import Delivery
from worker.fetch import Fetched
from worker.runner import Runner

FIRST = Delivery(is_over=False)
WAIT_SECONDS = 10


def refs(count: int) -> list[ImageRef]:
    """Return images whose names are their positions."""
    return [ImageRef(f"/{position}", "1-1", 1) for position in range(count)]


def position_of(ref: ImageRef) -> int:
    """Return where the image stands in its job."""
    return int(ref.uri[1:])


def as_pixels(ref: ImageRef, _: object = None) -> Fetched:
    """Return an image whose first pixel holds its position."""
    return Fetched(ref, (np.full((1, 1, 3), position_of(ref), np.uint8),), b"digest", 1, 1, 0)


def in_its_place(ref: ImageRef, place: NDArray[np.uint8] | None) -> Fetched:
    """Return an image whose pixels all hold its position, in the place that is meant for it."""
    assert place is not None
    place[:] = position_of(ref)
    return Fetched(ref, (place,), b"digest", 1, 1, 0)


def with_faces(ref: ImageRef, *values: int) -> Fetched:
    """Return an image with as many faces, whose first pixels hold these values."""
    crops = tuple(np.full((1, 1, 3), value, np.uint8) for value in values)
    return Fetched(ref, crops, b"digest", 1, 1, 0, tuple(Face(value, 0, 40, 40, 0.9) for value in values))


def no_mark(position: int | None) -> None:
    """Mark nothing."""


@dataclass
class Echo:
    """Predicts the position that an image's pixels hold, in hundredths."""

    batch_size: int = 4
    batches: list[int] = field(default_factory=list)
    on_batch: Callable[[], object] = lambda: None

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        self.on_batch()
        return batch[:, 0, 0, 0].astype(np.float32) / 100


@pytest.mark.parametrize("delivery", [FIRST, Delivery(False, losses=1), Delivery(False, losses=1, suspect=5)])
@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_outcomes_are_in_the_order_of_the_images(count: int, delivery: Delivery) -> None:
    outcomes, _ = Runner(as_pixels, Echo(), threads=3).run(refs(count), delivery, no_mark)
    assert [outcome.ref for outcome in outcomes] == refs(count)
    assert [outcome.p_real for outcome in outcomes] == pytest.approx([n / 100 for n in range(count)])


def test_a_slow_image_does_not_change_the_order() -> None:
    others = threading.Event()

    def fetch(ref: ImageRef, _: object) -> Fetched:
        if position_of(ref) == 0:
            assert others.wait(WAIT_SECONDS)
        elif position_of(ref) == 5:
            others.set()
        return as_pixels(ref)

    outcomes, _ = Runner(fetch, Echo(), threads=2).run(refs(8), FIRST, no_mark)
    assert [position_of(outcome.ref) for outcome in outcomes] == list(range(8))


@pytest.mark.parametrize("delivery", [FIRST, Delivery(False, losses=1)])
def test_failures_stand_in_their_places_and_the_rest_is_scored(delivery: Delivery) -> None:
    bad = {0, 3, 4, 9}

    def fetch(ref: ImageRef, _: object) -> Fetched | Outcome:
        return Outcome(ref, Status.TRUNCATED, reason="cut") if position_of(ref) in bad else as_pixels(ref)

    predictor = Echo()
    outcomes, _ = Runner(fetch, predictor, threads=2).run(refs(10), delivery, no_mark)
    assert {n for n, outcome in enumerate(outcomes) if outcome.status is Status.TRUNCATED} == bad
    assert [outcome.ref for outcome in outcomes] == refs(10)
    assert sum(predictor.batches) == 6


def test_a_job_of_failures_alone_needs_no_prediction() -> None:
    predictor = Echo()
    outcomes, _ = Runner(lambda ref, _: Outcome(ref, Status.NOT_FOUND), predictor, threads=2).run(
        refs(5), FIRST, no_mark
    )
    assert len(outcomes) == 5
    assert predictor.batches == []


@pytest.mark.parametrize("delivery", [FIRST, Delivery(False, losses=1)])
def test_batches_are_full_but_for_the_last(delivery: Delivery) -> None:
    predictor = Echo(batch_size=4)
    Runner(as_pixels, predictor, threads=2).run(refs(10), delivery, no_mark)
    assert predictor.batches == [4, 4, 2]


def test_images_whose_pixels_are_in_their_places_are_a_batch_without_being_copied() -> None:
    places: list[NDArray[np.uint8]] = []
    predictor = Echo(batch_size=4)
    echo = predictor.predict
    shared = []

    def fetch(ref: ImageRef, place: NDArray[np.uint8] | None) -> Fetched:
        image = in_its_place(ref, place)
        places.extend(image.crops)
        return image

    def predict(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        shared.append(sum(np.shares_memory(batch, place) for place in places))
        return echo(batch)

    predictor.predict = predict  # type: ignore[method-assign]
    outcomes, _ = Runner(fetch, predictor, threads=2).run(refs(10), FIRST, no_mark)
    assert shared == [4, 4, 0]  # the last ones are not all of theirs
    assert [outcome.p_real for outcome in outcomes] == pytest.approx([n / 100 for n in range(10)])


@pytest.mark.parametrize("bad", [{0}, {3}, {4, 5, 6, 7}, {1, 9}])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_does_not_mix_up_the_images_that_follow(bad: set[int], threads: int) -> None:
    def fetch(ref: ImageRef, place: NDArray[np.uint8] | None) -> Fetched | Outcome:
        return Outcome(ref, Status.TRUNCATED) if position_of(ref) in bad else in_its_place(ref, place)

    predictor = Echo(batch_size=4)
    outcomes, _ = Runner(fetch, predictor, threads=threads).run(refs(21), FIRST, no_mark)
    assert [outcome.p_real for outcome in outcomes] == [None if n in bad else pytest.approx(n / 100) for n in range(21)]
    assert predictor.batches[:-1] == [4] * (len(predictor.batches) - 1)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros(5), np.zeros((4, 1))], ids=["few", "many", "nested"])
def test_scores_that_are_not_one_for_each_image_are_an_error(wrong: NDArray[np.float32]) -> None:
    predictor = Echo()
    predictor.predict = lambda batch: wrong  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="shape"):
        Runner(as_pixels, predictor, threads=1).run(refs(4), FIRST, no_mark)


def test_an_image_that_cannot_be_read_among_others_that_can_is_unreadable() -> None:
    def fetch(ref: ImageRef, _: object) -> Fetched:
        if position_of(ref) == 3:
            raise StorageError("reading failed: Input/output error")
        return as_pixels(ref)

    outcomes, _ = Runner(fetch, Echo(), threads=2).run(refs(50), FIRST, no_mark)
    assert [n for n, outcome in enumerate(outcomes) if outcome.status is Status.UNREADABLE] == [3]
    assert outcomes[3].reason == "reading failed: Input/output error"


def test_a_storage_that_gives_not_one_image_ends_the_job() -> None:
    def fetch(ref: ImageRef, _: object) -> Fetched:
        raise StorageError("reading failed: Input/output error")

    with pytest.raises(StorageError):
        Runner(fetch, Echo(), threads=2).run(refs(50), FIRST, no_mark)


def test_a_runner_goes_on_after_a_job_that_failed() -> None:
    runner = Runner(as_pixels, predictor := Echo(), threads=2)
    predictor.on_batch = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        runner.run(refs(50), FIRST, no_mark)
    predictor.on_batch = lambda: None
    assert len(runner.run(refs(50), FIRST, no_mark)[0]) == 50


def test_images_are_decoded_ahead_of_the_engine_but_not_without_bound() -> None:
    threads, batch_size = 2, 4
    ahead = 3 * batch_size  # one that the threads are at, two that wait
    fetched: list[ImageRef] = []
    predictor = Echo(batch_size)
    gaps = []

    def note_gap() -> None:
        given = sum(predictor.batches)
        deadline = time.monotonic() + WAIT_SECONDS
        while len(fetched) < min(given + batch_size, 100) and time.monotonic() < deadline:
            time.sleep(0.001)
        gaps.append(len(fetched) - given)

    predictor.on_batch = note_gap
    Runner(lambda ref, _: fetched.append(ref) or as_pixels(ref), predictor, threads=threads).run(
        refs(100), FIRST, no_mark
    )
    assert len(gaps) == 25
    assert min(gaps[:-1]) >= batch_size
    assert max(gaps) <= ahead


def test_a_first_delivery_marks_nothing() -> None:
    marks: list[int | None] = []
    Runner(as_pixels, Echo(), threads=2).run(refs(10), FIRST, marks.append)
    assert marks == []


def test_after_a_loss_each_image_is_marked_before_it_is_fetched_and_none_while_predicting() -> None:
    events: list[object] = []
    predictor = Echo(batch_size=2, on_batch=lambda: events.append("predict"))

    def fetch(ref: ImageRef, _: object) -> Fetched:
        events.append(f"fetch {position_of(ref)}")
        return as_pixels(ref)

    Runner(fetch, predictor, threads=4).run(refs(3), Delivery(False, losses=1), events.append)
    assert events == [0, "fetch 0", 1, "fetch 1", None, "predict", 2, "fetch 2", None, "predict"]


def test_the_suspect_comes_first_so_that_it_is_cleared_or_convicted_soon() -> None:
    marks: list[int | None] = []
    Runner(as_pixels, Echo(), threads=2).run(refs(4), Delivery(False, losses=2, suspect=2), marks.append)
    assert marks == [2, 0, 1, 3, None]


def test_a_suspect_beyond_the_end_is_no_suspect() -> None:
    marks: list[int | None] = []
    outcomes, _ = Runner(as_pixels, Echo(), threads=2).run(refs(2), Delivery(False, 1, suspect=2), marks.append)
    assert marks == [0, 1, None]
    assert len(outcomes) == 2


def test_images_that_crashed_are_neither_marked_nor_fetched_again() -> None:
    marks: list[int | None] = []
    fetched: list[int] = []
    delivery = Delivery(False, losses=1, crashed=frozenset({1, 3}))
    outcomes, _ = Runner(lambda ref, _: fetched.append(position_of(ref)) or as_pixels(ref), Echo(), threads=2).run(
        refs(5), delivery, marks.append
    )
    assert fetched == [0, 2, 4]
    assert marks == [0, 2, 4, None]
    assert [outcome.status is Status.CRASHED for outcome in outcomes] == [False, True, False, True, False]
    assert outcomes[1].reason


def test_the_time_of_each_part_is_kept() -> None:
    predictor = Echo(on_batch=lambda: time.sleep(0.01))
    _, timings = Runner(lambda ref, _: time.sleep(0.01) or as_pixels(ref), predictor, threads=2).run(
        refs(8), FIRST, no_mark
    )
    assert timings.decode >= 8 * 0.01
    assert 2 * 0.01 <= timings.predict <= timings.total


@pytest.mark.parametrize("delivery", [FIRST, Delivery(False, losses=1)])
def test_an_image_with_several_faces_has_the_score_of_the_most_generated_one(delivery: Delivery) -> None:
    outcomes, _ = Runner(lambda ref, _: with_faces(ref, 30, 10, 20), Echo(), threads=2).run(refs(3), delivery, no_mark)
    for outcome in outcomes:
        assert outcome.status is Status.OK
        assert outcome.p_real == pytest.approx(0.1)
        assert [(found.face.x, found.p_real) for found in outcome.faces] == [
            (30, pytest.approx(0.3)), (10, pytest.approx(0.1)), (20, pytest.approx(0.2)),
        ]  # fmt: skip


@pytest.mark.parametrize("delivery", [FIRST, Delivery(False, losses=1)])
def test_batches_are_filled_with_the_faces_of_several_images(delivery: Delivery) -> None:
    numbers = [1, 3, 9, 0, 2, 5, 1]

    def fetch(ref: ImageRef, _: object) -> Fetched | Outcome:
        number = numbers[position_of(ref)]
        start = 10 * position_of(ref)
        return with_faces(ref, *range(start, start + number)) if number else Outcome(ref, Status.NO_FACE)

    predictor = Echo(batch_size=4)
    outcomes, _ = Runner(fetch, predictor, threads=2).run(refs(7), delivery, no_mark)

    assert predictor.batches == [4, 4, 4, 4, 4, 1]
    assert [outcome.ref for outcome in outcomes] == refs(7)
    assert [[round(100 * found.p_real) for found in outcome.faces] for outcome in outcomes] == [
        list(range(10 * position, 10 * position + number)) for position, number in enumerate(numbers)
    ]
    assert [outcome.p_real for outcome in outcomes] == [
        pytest.approx(position / 10) if number else None for position, number in enumerate(numbers)
    ]


def test_an_image_that_was_scored_as_a_whole_has_no_faces() -> None:
    (outcome,), _ = Runner(as_pixels, Echo(), threads=1).run(refs(1), FIRST, no_mark)
    assert outcome.faces == ()
