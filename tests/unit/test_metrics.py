"""The metrics, against values that can be worked out by hand."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from core.manifest import Manifest
from model.metrics import (
    Confusion,
    Metrics,
    Scores,
    average_precision,
    confusion,
    equal_error_rate,
    expected_calibration_error,
    measure,
    recall_at,
    reliability,
    roc_auc,
    share,
)

MANIFEST = Manifest(
    name="card",
    format="keras",
    file="model.keras",
    sha256="0" * 64,
    architecture="card-resnet",
    parameters=1,
    preprocess="card",
    trained=True,
    source="a test",
    created_at=datetime(2025, 1, 1, tzinfo=UTC),
    keras_version="3",
)

#: Scores and labels of both classes, with many ties.
LABELLED = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40).filter(
    lambda rows: len({is_real for is_real, _ in rows}) == 2
)


def scores_of(real: Any, generated: Any) -> Scores:
    is_real = np.array([True] * len(real) + [False] * len(generated))
    p_real = np.array([*real, *generated], float)
    return Scores(is_real, p_real, p_real)


def measured(real: Any, generated: Any, manifest: Manifest = MANIFEST, resamples: int = 20) -> Metrics:
    return measure(scores_of(real, generated), manifest, resamples=resamples)


def curve(real: Any, generated: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    scores = scores_of(real, generated)
    false_positives, recall, _ = roc_curve(~scores.is_real, -scores.p_real, drop_intermediate=False)
    return false_positives, recall


def test_a_perfect_model_is_perfect() -> None:
    found = measured([1.0, 1.0, 1.0], [0.0, 0.0])
    for name in ("accuracy", "roc_auc", "average_precision", "recall_at_1_percent", "recall_at_5_percent"):
        assert getattr(found, name).value == 1, name
    for name in ("equal_error_rate", "calibration_error", "false_positive_rate", "false_negative_rate"):
        assert getattr(found, name).value == 0, name
    assert (found.real, found.generated, found.baseline) == (3, 2, 0.6)


def test_a_model_that_is_always_wrong_is_worse_than_chance() -> None:
    found = measured([0.0, 0.0], [1.0, 1.0])
    assert (found.accuracy.value, found.roc_auc.value, found.equal_error_rate.value) == (0, 0, 1)
    assert found.calibration_error.value == 1


def test_one_score_for_all_images_tells_nothing() -> None:
    found = measured([0.3] * 6, [0.3] * 2)
    assert (found.roc_auc.value, found.equal_error_rate.value, found.recall_at_5_percent.value) == (0.5, 0.5, 0)
    assert found.average_precision.value == pytest.approx(2 / 8)
    assert found.accuracy.value == 2 / 8  # all are called generated
    assert found.calibration_error.value == pytest.approx(0.7 - 0.25)


def test_random_scores_are_near_chance() -> None:
    chance = np.random.default_rng(0)
    found = measured(chance.random(2000), chance.random(1000))
    assert found.roc_auc.value == pytest.approx(0.5, abs=0.03)
    assert found.average_precision.value == pytest.approx(1 / 3, abs=0.03)
    assert found.equal_error_rate.value == pytest.approx(0.5, abs=0.03)
    assert found.recall_at_5_percent.value == pytest.approx(0.05, abs=0.03)


def test_ties_between_the_classes_count_half() -> None:
    # Of the four pairs, three are right and one is a tie.
    scores = scores_of([0.5, 0.9], [0.1, 0.5])
    assert roc_auc(scores.is_real, scores.p_real) == 3.5 / 4
    assert measured([0.5, 0.9], [0.1, 0.5]).roc_auc.value == 3.5 / 4


def test_scores_too_small_for_one_minus_them_are_still_in_order() -> None:
    assert measured([2e-20], [1e-20]).roc_auc.value == 1


def test_positive_means_generated() -> None:
    # The one generated image comes third from below: precision 1/3 at full recall.
    scores = scores_of([0.1, 0.2, 0.8, 0.9], [0.3])
    assert average_precision(scores.is_real, scores.p_real) == pytest.approx(1 / 3)
    assert measured([0.1, 0.2, 0.8, 0.9], [0.3]).average_precision.value == pytest.approx(1 / 3)
    assert confusion(scores.is_real, scores.p_real, 0.5, 0.5) == Confusion(2, 0, 2, 0, 0, 1)


def test_recall_is_that_of_the_best_threshold_which_keeps_the_rate() -> None:
    # 100 real images from 0.01 to 1; below the lowest lie 2 of 10 generated ones, below the second 3, the sixth 7.
    real = np.arange(1, 101) / 100
    generated = [0.001, 0.002, 0.015, 0.025, 0.035, 0.045, 0.055, 0.5, 0.6, 0.7]
    false_positives, recall = curve(real, generated)
    assert recall_at(0.0, false_positives, recall) == pytest.approx(0.2)
    assert recall_at(0.01, false_positives, recall) == pytest.approx(0.3)
    assert recall_at(0.0199, false_positives, recall) == pytest.approx(0.3)
    assert recall_at(0.05, false_positives, recall) == pytest.approx(0.7)
    assert recall_at(1.0, false_positives, recall) == 1


def test_the_equal_error_rate_is_interpolated_between_thresholds() -> None:
    assert equal_error_rate(*curve([0.2, 0.6, 0.7, 0.8], [0.1, 0.3, 0.4, 0.9])) == pytest.approx(0.25)
    # From (0, 1/2) to (1/3, 1): the misses, from 1/2 to 0, meet the false positives at 1/5.
    assert equal_error_rate(np.array([0, 0, 1 / 3, 1]), np.array([0, 0.5, 1, 1])) == pytest.approx(1 / 5)


@given(LABELLED)
def test_rates_and_areas_are_shares(rows: list[tuple[bool, int]]) -> None:
    real, generated = ([score / 8 for is_real, score in rows if is_real == wanted] for wanted in (True, False))
    false_positives, recall = curve(real, generated)
    assert 0 <= equal_error_rate(false_positives, recall) <= 1
    assert 0 <= recall_at(0.01, false_positives, recall) <= recall_at(0.05, false_positives, recall) <= 1
    scores = scores_of(real, generated)
    pairs = [(r > g) + (r == g) / 2 for r in real for g in generated]
    found = measure(scores, MANIFEST, resamples=1)
    assert found.roc_auc.value == pytest.approx(np.mean(pairs)) == roc_auc(scores.is_real, scores.p_real)
    assert found.average_precision.value == pytest.approx(average_precision(scores.is_real, scores.p_real))


@given(LABELLED)
def test_swapping_the_classes_turns_the_curve_around(rows: list[tuple[bool, int]]) -> None:
    real, generated = ([score / 8 for is_real, score in rows if is_real == wanted] for wanted in (True, False))
    mirrored = curve([1 - score for score in generated], [1 - score for score in real])
    assert equal_error_rate(*mirrored) == pytest.approx(equal_error_rate(*curve(real, generated)))


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    probability = np.repeat([0.1, 0.5, 0.9], 10)
    is_positive = np.concatenate([np.arange(10) < 1, np.arange(10) < 5, np.arange(10) < 9])
    assert expected_calibration_error(is_positive, probability) == pytest.approx(0, abs=1e-12)


def test_the_calibration_error_weighs_bins_by_their_images() -> None:
    probability = np.array([0.9] * 30 + [0.1] * 10)
    is_positive = np.array([True] * 15 + [False] * 15 + [False] * 10)
    assert expected_calibration_error(is_positive, probability) == pytest.approx(0.75 * 0.4 + 0.25 * 0.1)


def test_errors_in_opposite_directions_cancel_only_within_a_bin() -> None:
    is_positive = np.array([True, False])
    assert expected_calibration_error(is_positive, np.array([0.501, 0.502])) == pytest.approx(0.0015)
    assert expected_calibration_error(is_positive, np.array([0.45, 0.55])) == pytest.approx(0.55)


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    count, predicted, observed = reliability(np.array([True, False, True]), np.array([0.0, 1.0, 1.0]), bins=15)
    assert (count[0], count[-1], count.sum()) == (1, 2, 3)
    assert (predicted[-1], observed[-1], observed[0]) == (1, 0.5, 1)


def test_what_lies_between_the_thresholds_is_unsure_and_not_in_the_accuracy_of_the_labelled() -> None:
    manifest = MANIFEST.model_copy(update={"generated_below": 0.2, "real_above": 0.6})
    found = measured([0.1, 0.3, 0.6, 0.7], [0.2, 0.5, 0.9, 0.0], manifest)
    assert found.labels == Confusion(1, 2, 1, 1, 1, 2)
    assert found.coverage.value == 5 / 8
    assert found.labelled_accuracy is not None
    assert found.labelled_accuracy.value == 3 / 5
    assert (found.false_positive_rate.value, found.false_negative_rate.value) == (1 / 4, 1 / 4)


def test_without_a_labelled_image_they_have_no_accuracy() -> None:
    manifest = MANIFEST.model_copy(update={"generated_below": 0.0, "real_above": 1.0})
    found = measured([0.9], [0.1], manifest)
    assert found.labelled_accuracy is None
    assert found.coverage.value == 0


def test_a_score_on_a_threshold_is_not_above_it() -> None:
    scores = scores_of([0.5], [0.5])
    assert confusion(scores.is_real, scores.p_real, 0.5, 0.5) == Confusion(0, 0, 1, 0, 0, 1)


def test_a_share_without_a_miss_is_not_certain() -> None:
    # Wilson: for n of n hits, the lower end is n / (n + 1.96^2).
    assert share(np.ones(50, bool)).low == pytest.approx(50 / (50 + 1.96**2), abs=1e-4)


def test_intervals_hold_the_value_and_the_same_seed_gives_the_same() -> None:
    chance = np.random.default_rng(1)
    scores = scores_of(chance.beta(3, 2, 300), chance.beta(2, 3, 200))
    first, again, other = (measure(scores, MANIFEST, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.roc_auc != other.roc_auc
    for name in ("accuracy", "roc_auc", "average_precision", "equal_error_rate", "recall_at_5_percent"):
        estimate = getattr(first, name)
        assert estimate.low < estimate.value < estimate.high, name


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Uniform scores against their square: the area is P(u^2 < v) = 2/3. By chance alone, 40 intervals of 95 % hold it
    # fewer than 33 times once in a thousand.
    chance = np.random.default_rng(2)
    hits = 0
    for _ in range(40):
        found = measured(chance.random(80), chance.random(80) ** 2, resamples=60).roc_auc
        hits += found.low <= 2 / 3 <= found.high
    assert hits >= 33
