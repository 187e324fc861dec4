"""How well scores tell real faces from generated ones. Everywhere here, *positive* means *generated*.

So a false positive is a real image that is called generated, and recall is the share of generated images that are
found. An image is called real if its calibrated probability is above 0.5, and generated at 0.5, as in the database.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from core.manifest import Manifest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Resamples of a bootstrap: enough for two digits of a 95 % interval.
RESAMPLES = 1000
#: Bins of the expected calibration error, as in Guo et al. 2017.
BINS = 15


@dataclass(frozen=True, slots=True)
class Scores:
    """What is known of the images that were scored, in three arrays of one length.

    Attributes:
        is_real: their labels.
        p_real: the network's scores, in [0, 1].
        probability: of a real face, calibrated, in [0, 1].
    """

    is_real: Bools
    p_real: Floats
    probability: Floats

    def take(self, chosen: NDArray[np.intp] | Bools) -> "Scores":
        """Return some of the images."""
        return Scores(self.is_real[chosen], self.p_real[chosen], self.probability[chosen])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number from a sample, with its 95 % confidence interval, from ``low`` to ``high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many images of each class were called what; ``unsure`` stays 0 where a decision is forced."""

    real_as_real: int
    real_as_unsure: int
    real_as_generated: int
    generated_as_real: int
    generated_as_unsure: int
    generated_as_generated: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well a model does on labelled images.

    Shares of images have Wilson's intervals, which are right for 0 of 50 too; the other intervals are of a stratified
    bootstrap.

    Attributes:
        real: number of real images.
        generated: number of generated images.
        baseline: accuracy of always naming the larger class.
        accuracy: at a calibrated probability of 0.5, over all images.
        roc_auc: area under the ROC curve of the scores.
        average_precision: area under the precision-recall curve, as scikit-learn defines it.
        equal_error_rate: where as large a share of real as of generated images is wrong.
        recall_at_1_percent: share of generated images found by the best threshold that at most 1 % of real images fail.
        recall_at_5_percent: likewise, 5 %.
        calibration_error: see ``expected_calibration_error``; resamples overstate it, and so does its interval.
        coverage: share of images that the model's thresholds label real or generated, and not unsure.
        labelled_accuracy: of these; None if there are none.
        false_positive_rate: share of real images that are labelled generated.
        false_negative_rate: share of generated images that are labelled real.
        decisions: at a calibrated probability of 0.5.
        labels: at the model's thresholds.
    """

    real: int
    generated: int
    baseline: float
    accuracy: Estimate
    roc_auc: Estimate
    average_precision: Estimate
    equal_error_rate: Estimate
    recall_at_1_percent: Estimate
    recall_at_5_percent: Estimate
    calibration_error: Estimate
    coverage: Estimate
    labelled_accuracy: Estimate | None
    false_positive_rate: Estimate
    false_negative_rate: Estimate
    decisions: Confusion
    labels: Confusion


def measure(scores: Scores, manifest: Manifest, *, resamples: int = RESAMPLES, seed: int = 0) -> Metrics:
    """Measure how well a model does, with confidence intervals.

    Args:
        scores: of at least one image of each class.
        manifest: of the model; its two thresholds make the labels.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    is_real, p_real = scores.is_real, scores.p_real
    as_real, as_generated = p_real > manifest.real_above, p_real <= manifest.generated_below
    labelled = as_real | as_generated
    real = int(is_real.sum())
    return Metrics(
        real=real,
        generated=len(is_real) - real,
        baseline=max(real, len(is_real) - real) / len(is_real),
        accuracy=share((scores.probability > 0.5) == is_real),
        **bootstrap(_measure_curves, scores, resamples=resamples, seed=seed),
        coverage=share(labelled),
        labelled_accuracy=share((as_real == is_real)[labelled]) if labelled.any() else None,
        false_positive_rate=share(as_generated[is_real]),
        false_negative_rate=share(as_real[~is_real]),
        decisions=confusion(is_real, scores.probability, 0.5, 0.5),
        labels=confusion(is_real, p_real, manifest.generated_below, manifest.real_above),
    )


def _measure_curves(scores: Scores) -> dict[str, float]:
    # Minus the score, not one minus it, which would make the smallest scores equal.
    false_positives, recall, _ = roc_curve(~scores.is_real, -scores.p_real, drop_intermediate=False)
    real = int(scores.is_real.sum())
    found, wrong = recall[1:] * (len(scores.is_real) - real), false_positives[1:] * real
    return {
        "roc_auc": float(np.trapezoid(recall, false_positives)),
        # As ``average_precision`` does, from the curve that is there already: a thousand times, that counts.
        "average_precision": float(np.diff(recall) @ (found / (found + wrong))),
        "equal_error_rate": equal_error_rate(false_positives, recall),
        "recall_at_1_percent": recall_at(0.01, false_positives, recall),
        "recall_at_5_percent": recall_at(0.05, false_positives, recall),
        "calibration_error": expected_calibration_error(~scores.is_real, 1 - scores.probability),
    }


def bootstrap(
    measure_once: Callable[[Scores], dict[str, float]], scores: Scores, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Estimate numbers, with the intervals that hold 95 % of what resamples give.

    Args:
        measure_once: computes the numbers, by name.
        scores: of at least one image of each class. A resample has as many of each class, drawn with replacement.
        resamples: how many.
        seed: the same seed gives the same intervals.
    """
    chance = np.random.default_rng(seed)
    classes = [np.flatnonzero(scores.is_real), np.flatnonzero(~scores.is_real)]
    drawn = [
        list(measure_once(scores.take(np.concatenate([chance.choice(rows, len(rows)) for rows in classes]))).values())
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {
        name: Estimate(value, float(low[place]), float(high[place]))
        for place, (name, value) in enumerate(measure_once(scores).items())
    }


def share(hits: Bools) -> Estimate:
    """Return the share of images that are hits, with Wilson's score interval (Wilson 1927).

    Args:
        hits: of at least one image, shape (n,).
    """
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high))


def roc_auc(is_real: Bools, p_real: Floats) -> float:
    """Return the area under the ROC curve: how often a generated image scores below a real one; ties count half."""
    return float(roc_auc_score(~is_real, -p_real))


def average_precision(is_real: Bools, p_real: Floats) -> float:
    """Return the area under the precision-recall curve, as ``sklearn.metrics.average_precision_score`` defines it."""
    return float(average_precision_score(~is_real, -p_real))


def equal_error_rate(false_positives: Floats, recall: Floats) -> float:
    """Return the rate at which as large a share of real images is wrong as of generated ones.

    Args:
        false_positives: rates along an ROC curve, from 0 to 1.
        recall: likewise. Between two points of the curve, rates are interpolated.
    """
    missed = 1 - recall
    after = int(np.argmax(false_positives >= missed))  # the first point is (0, 0), so this is never the first
    gap_before = missed[after - 1] - false_positives[after - 1]
    gap_after = missed[after] - false_positives[after]
    share = gap_before / (gap_before - gap_after)
    return float(false_positives[after - 1] + share * (false_positives[after] - false_positives[after - 1]))


def recall_at(limit: float, false_positives: Floats, recall: Floats) -> float:
    """Return the highest recall on an ROC curve whose false-positive rate is at most a limit; not interpolated."""
    return float(recall[false_positives <= limit].max())


def expected_calibration_error(is_positive: Bools, probability: Floats, bins: int = BINS) -> float:
    """Return by how much probabilities differ from frequencies, on average over the images.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3, with the probability of the positive class
    in place of the confidence in the class named: bins of equal width, weighted by the number of their images.

    Args:
        is_positive: labels, of shape (n,).
        probability: of the positive class, in [0, 1], of shape (n,).
        bins: how many.
    """
    count, predicted, observed = reliability(is_positive, probability, bins)
    return float((count * np.abs(predicted - observed)).sum() / len(probability))


def reliability(is_positive: Bools, probability: Floats, bins: int = BINS) -> tuple[Floats, Floats, Floats]:
    """Return, for each bin of equal width: its images, their mean probability, the share that is positive.

    The last two are 0 where a bin is empty.

    Args:
        is_positive: labels, of shape (n,).
        probability: of the positive class, in [0, 1], of shape (n,).
        bins: how many; the last includes 1.
    """
    place = np.minimum((probability * bins).astype(np.intp), bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    divisor = np.maximum(count, 1)
    predicted = np.bincount(place, probability, bins) / divisor
    observed = np.bincount(place, is_positive.astype(np.float64), bins) / divisor
    return count, predicted, observed


def confusion(is_real: Bools, score: Floats, generated_below: float, real_above: float) -> Confusion:
    """Count what images were called, of each class: real above one threshold, generated at or below another."""
    counts = []
    for chosen in (score[is_real], score[~is_real]):
        as_real, as_generated = int((chosen > real_above).sum()), int((chosen <= generated_below).sum())
        counts += [as_real, len(chosen) - as_real - as_generated, as_generated]
    return Confusion(*counts)
