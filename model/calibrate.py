"""Turn scores into probabilities that can be taken at their word, and choose the thresholds of the labels.

Both are fitted on labelled images that the model was not trained on, and written into its manifest. The weights, and so
the model's identity and the scores in the database, stay as they are.
"""

from dataclasses import asdict, dataclass
from math import floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.special import logit as exact_logit
from sklearn.linear_model import LogisticRegression

from core.errors import ModelError, UsageError
from core.manifest import Calibration, Manifest
from core.settings import Settings
from model.artifact import write_manifest
from model.data import Split, read_samples
from model.metrics import expected_calibration_error
from model.predictor import load_predictor
from model.scoring import Failure, score

Method = Literal["platt", "temperature"]
#: Shares of real images labelled generated for which a threshold is kept.
FALSE_POSITIVE_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: Scores closer than this to 0 or 1 count as this close: float32 has no number between 1 - 6e-8 and 1.
_EDGE = 2.0**-24


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration did.

    Attributes:
        manifest: as it was written.
        real: number of real images that it was fitted on.
        generated: number of generated images.
        error_before: expected calibration error on these images, by the scores as they are.
        error_after: by the calibrated probabilities.
        false_positive_rate: share of the real images that the new thresholds label generated.
        false_negative_rate: share of the generated images that they label real.
        unsure: share of all images between the thresholds.
        failures: images that could not be decoded.
    """

    manifest: Manifest
    real: int
    generated: int
    error_before: float
    error_after: float
    false_positive_rate: float
    false_negative_rate: float
    unsure: float
    failures: tuple[Failure, ...]

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for ``json.dumps``."""
        return {"id": self.manifest.id, **asdict(self), "manifest": self.manifest.model_dump(mode="json")}


def calibrate(
    folder: Path,
    data: Path,
    settings: Settings,
    *,
    split: Split | None = "val",
    fpr: float = 0.01,
    fnr: float = 0.05,
    method: Method = "platt",
) -> Calibrated:
    """Fit the calibration and the thresholds of an artifact, and write its manifest anew.

    Args:
        folder: of the artifact.
        data: labelled data set; must be none that the model was trained on.
        settings: batch size, limits on images.
        split: part of the data set; None takes all.
        fpr: highest share of real images that may be labelled generated.
        fnr: highest share of generated images that may be labelled real.
        method: see ``fit``.

    Raises:
        UsageError: a rate is not between 0 and 1.
        SourceError: the data set cannot be used.
        ModelError: the artifact cannot be used or written, or its scores do not tell the classes apart.
    """
    for option, rate in (("fpr", fpr), ("fnr", fnr)):
        if not 0 < rate < 1:
            raise UsageError(f"{option} {rate} is not a share between 0 and 1")
    samples = read_samples(data, split=split)
    predictor = load_predictor(folder, precision="float32", batch_size=settings.batch_size)
    scored = score(predictor, samples, settings, doing="calibrating")
    (p_real,), is_real = scored.p_real.values(), scored.is_real
    slope, intercept = fit(is_real, p_real, method)
    generated_below, real_above = choose_thresholds(is_real, p_real, fpr, fnr, middle=float(expit(-intercept / slope)))
    calibration = Calibration(
        slope=slope,
        intercept=intercept,
        images=len(p_real),
        source=f"{split or 'all'} of {data.resolve().name}",
        false_positive_rate=fpr,
        operating_points={
            f"{rate:g}": highest_threshold(is_real, p_real, rate) for rate in sorted({*FALSE_POSITIVE_RATES, fpr})
        },
    )
    manifest = predictor.manifest.model_copy(
        update={"calibration": calibration, "generated_below": generated_below, "real_above": real_above}
    )
    write_manifest(folder, manifest)
    is_generated, as_generated, as_real = ~is_real, p_real <= generated_below, p_real > real_above
    return Calibrated(
        manifest=manifest,
        real=int(is_real.sum()),
        generated=int(is_generated.sum()),
        error_before=expected_calibration_error(is_generated, 1 - p_real),
        error_after=expected_calibration_error(is_generated, 1 - probability(p_real, calibration)),
        false_positive_rate=float(as_generated[is_real].mean()),
        false_negative_rate=float(as_real[is_generated].mean()),
        unsure=float((~as_generated & ~as_real).mean()),
        failures=scored.failures,
    )


def logit(p_real: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of the odds, finite for 0 and 1 too."""
    clipped: NDArray[np.float64] = exact_logit(np.clip(p_real, _EDGE, 1 - _EDGE))
    return clipped


def probability(p_real: NDArray[np.float64], calibration: Calibration | None) -> NDArray[np.float64]:
    """Return the calibrated probability of a real face; without a calibration, the score itself.

    Args:
        p_real: the network's scores, in [0, 1].
        calibration: of the model.
    """
    if calibration is None:
        return p_real
    calibrated: NDArray[np.float64] = expit(calibration.slope * logit(p_real) + calibration.intercept)
    return calibrated


def fit(is_real: NDArray[np.bool_], p_real: NDArray[np.float64], method: Method) -> tuple[float, float]:
    """Return the slope and intercept, on the logits of scores, that minimise the log-loss.

    ``platt`` (Platt 1999) fits both. It is the default, since a network's scores are often not only too extreme but
    also off to one side, on photos from other cameras say, and only an intercept corrects that. ``temperature`` (Guo
    et al. 2017) fits the slope alone and so leaves the decision at 0.5 where it is: for images whose share of real
    ones says nothing about those that will come.

    Labels are smoothed as Platt has it, to (n + 1) / (n + 2), or classes that separate would have an infinite slope.

    Args:
        is_real: labels, of both classes, shape (n,).
        p_real: scores in [0, 1], shape (n,).
        method: ``platt`` or ``temperature``.

    Raises:
        ModelError: the slope is not positive: real images score no higher than generated ones.
    """
    target = np.where(is_real, 1 - 1 / (is_real.sum() + 2), 1 / ((~is_real).sum() + 2))
    logits = logit(p_real)[:, None]
    regression = LogisticRegression(C=np.inf, fit_intercept=method == "platt", tol=1e-8, max_iter=1000)
    # A soft label is one image that counts as both classes, with the two shares as weights.
    regression.fit(
        np.concatenate([logits, logits]),
        np.repeat([1, 0], len(logits)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    slope, intercept = float(regression.coef_[0, 0]), float(np.ravel(regression.intercept_)[0])
    if not slope > 0:
        raise ModelError("the model's scores are no higher for real than for generated images: nothing to calibrate")
    return slope, intercept


def choose_thresholds(
    is_real: NDArray[np.bool_], p_real: NDArray[np.float64], fpr: float, fnr: float, *, middle: float
) -> tuple[float, float]:
    """Choose the scores at or below which an image is labelled generated, and above which it is labelled real.

    Each is as near to the other class as its rate allows, half way to the next score. What lies between is unsure. If
    they pass each other, any one threshold between them keeps both rates: it is the one nearest to the middle.

    Args:
        is_real: labels, of both classes, shape (n,).
        p_real: scores in [0, 1], shape (n,).
        fpr: highest share of real images at or below the first threshold.
        fnr: highest share of generated images above the second.
        middle: score whose calibrated probability is 0.5.

    Returns:
        ``generated_below`` and ``real_above``, the first no higher than the second.

    Raises:
        ModelError: more real images than allowed score exactly 0.
    """
    generated_below = highest_threshold(is_real, p_real, fpr)
    if generated_below == 0:
        raise ModelError(
            f"more than {fpr:.3g} of the real images score 0: no threshold keeps them from being generated"
        )
    generated = np.sort(p_real[~is_real])[::-1]
    last_right = generated[
        _allowed(fnr, len(generated))
    ]  # this generated image and all below must not be labelled real
    real_above = float((last_right + p_real[p_real > last_right].min(initial=1)) / 2)
    if generated_below > real_above:
        generated_below = real_above = min(max(middle, real_above), generated_below)
    return generated_below, real_above


def highest_threshold(is_real: NDArray[np.bool_], p_real: NDArray[np.float64], fpr: float) -> float:
    """Return the highest score such that no more than a share of the real images score it or less.

    It lies half way between two scores; it is 0 if more than that share score 0, and then no threshold is low enough.

    Args:
        is_real: labels, of which some are real, shape (n,).
        p_real: scores in [0, 1], shape (n,).
        fpr: the share.
    """
    real = np.sort(p_real[is_real])
    first_right = real[_allowed(fpr, len(real))]  # this real image and all above it must not be labelled generated
    return float((p_real[p_real < first_right].max(initial=0) + first_right) / 2)


def _allowed(rate: float, count: int) -> int:
    return floor(rate * count + 1e-9)  # 0.29 * 100 is a little less than 29
