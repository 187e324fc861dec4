"""Tell what gives the class of a labelled image away without a look at the face: a network would learn that first.

A property is judged by the area under the ROC curve (AUC) that it reaches alone: the chance that, of a real and a
generated image, it tells which is which. 0.5 is a coin's toss, 1 tells all.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan, nan, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from core.errors import ImageError, SourceError, StorageError
from core.settings import Settings
from core.storage import read_image
from core.uris import path_to_uri
from model.data import LABELS, Sample
from model.preprocess import configure_cv2
from model.traits import TRAITS, Trait, Value, measure

Level = Literal["", "note", "warning"]
Measures = dict[str, Value]
#: Called with the number of images that are done, and of all.
Report = Callable[[int, int], None]
NOTE, WARNING = 0.6, 0.75
TOGETHER = Trait(
    "all_together", "a model must score well above this on new sources before it can be said to look at faces"
)
_FOLDS = 5
_BINS = 32


@dataclass(frozen=True, slots=True)
class Finding:
    """How far one property gives the class away.

    Attributes:
        name: of the property.
        auc: 0.5 to 1; None if it could not be told, as not both classes have the property.
        higher: the class in which a number tends to be higher; None for words, and for numbers that tell the classes
            apart in another way, as where one lies on both sides of the other.
        real: mean, or most frequent word, of the real images that have the property.
        generated: likewise.
        images: number of images that have the property.
        level: how bad that is.
        advice: what to do about it; empty if nothing has to be done.
    """

    name: str
    auc: float | None
    higher: str | None
    real: Value
    generated: Value
    images: int
    level: Level
    advice: str


@dataclass(frozen=True, slots=True)
class SourceMeans:
    """The images of one source.

    Attributes:
        source: its name.
        label: ``real`` or ``generated``.
        images: how many.
        means: of each property that is a number; nan if none of its images has it.
        stands_out: the mean of all other images, for the properties in which they are more than a standard deviation
            from this source's, the strongest first.
    """

    source: str
    label: str
    images: int
    means: dict[str, float]
    stands_out: dict[str, float]


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found.

    Attributes:
        real: number of real images that were measured.
        generated: likewise.
        findings: for each property, the worst first.
        together: what all properties give away together, out of fold.
        sources: the images by source.
        failures: path and reason of each image that could not be decoded.
    """

    real: int
    generated: int
    findings: list[Finding]
    together: Finding
    sources: list[SourceMeans]
    failures: list[tuple[Path, str]]

    @property
    def uncertainty(self) -> float:
        """Two standard errors of the AUC of a property that gives nothing away (Mann and Whitney 1947)."""
        return 2 * sqrt((self.real + self.generated + 1) / (12 * self.real * self.generated))


def audit(samples: Sequence[Sample], settings: Settings, *, report: Report = lambda _, __: None) -> Audit:
    """Measure images and tell what gives their class away.

    Args:
        samples: labelled images.
        settings: limits on their size, number of threads that decode.
        report: called with the number of images that are done, and of all.

    Raises:
        SourceError: of one class, fewer than two images could be decoded.
    """
    measured, failures = _measure_all(samples, settings, report)
    kept, measures = [sample for sample, _ in measured], [found for _, found in measured]
    is_real = np.array([sample.is_real for sample in kept], bool)
    real = int(is_real.sum())
    for label, count in zip(LABELS, (len(kept) - real, real), strict=True):
        if count < 2:
            first = f": {failures[0][0]}: {failures[0][1]}" if failures else ""
            raise SourceError(f"{count} of the {label} images could be decoded, an audit needs two{first}")
    findings = [_judge(trait, [found[trait.name] for found in measures], is_real) for trait in TRAITS]
    return Audit(
        real=real,
        generated=len(kept) - real,
        findings=sorted(findings, key=lambda finding: -(finding.auc or 0)),
        together=_finding(TOGETHER, _auc_together(measures, is_real), images=len(kept)),
        sources=_means_by_source(kept, measures),
        failures=failures,
    )


def _measure_all(
    samples: Sequence[Sample], settings: Settings, report: Report
) -> tuple[list[tuple[Sample, Measures]], list[tuple[Path, str]]]:
    configure_cv2()

    def measure_one(sample: Sample) -> Measures | str:
        uri = path_to_uri(str(sample.path.absolute()))
        try:
            content = read_image(uri, roots=(Path("/"),), max_bytes=settings.max_bytes)
            return measure(content, sample.box, max_pixels=settings.max_pixels)
        except (ImageError, StorageError) as error:
            return str(error)

    measured: list[tuple[Sample, Measures]] = []
    failures: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(settings.decode_threads or os.cpu_count() or 1, thread_name_prefix="measure") as threads:
        try:
            for done, (sample, found) in enumerate(zip(samples, threads.map(measure_one, samples), strict=True), 1):
                if isinstance(found, str):
                    failures.append((sample.path, found))
                else:
                    measured.append((sample, found))
                report(done, len(samples))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    return measured, failures


def _judge(trait: Trait, values: Sequence[Value], is_real: NDArray[np.bool_]) -> Finding:
    """Judge one property by the images that have it."""
    has = np.array([value is not None and not (isinstance(value, float) and isnan(value)) for value in values])
    labels, there = is_real[has], [value for value, one in zip(values, has, strict=True) if one]
    if min(labels.sum(), (~labels).sum()) < 2:
        return _finding(trait, None, images=len(there))
    if not trait.is_number:
        words = np.array(there, object)
        real, generated = (Counter(words[mask]).most_common(1)[0][0] for mask in (labels, ~labels))
        return _finding(trait, _auc_of_words(words, labels), images=len(there), real=real, generated=generated)
    numbers = np.array(there, float)
    auc, higher = _auc_of_numbers(numbers, labels)
    real, generated = (float(numbers[mask].mean()) for mask in (labels, ~labels))
    return _finding(trait, auc, images=len(there), higher=higher, real=real, generated=generated)


def _finding(
    trait: Trait,
    auc: float | None,
    *,
    images: int,
    higher: str | None = None,
    real: Value = None,
    generated: Value = None,
) -> Finding:
    level: Level = "warning" if (auc or 0) >= WARNING else "note" if (auc or 0) >= NOTE else ""
    return Finding(trait.name, auc, higher, real, generated, images, level, trait.advice if level else "")


def _auc_of_numbers(numbers: NDArray[np.float64], is_real: NDArray[np.bool_]) -> tuple[float, str | None]:
    """Return the AUC of a number as a score, or of the bin that it falls into, and in the first case who is higher.

    The bins see what the order does not: one class on both sides of the other.
    """
    ordered = float(roc_auc_score(is_real, numbers))
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1]))
    binned = _auc_of_words(np.digitize(numbers, edges), is_real)
    if binned > max(ordered, 1 - ordered):
        return binned, None
    return (ordered, "real") if ordered > 0.5 else (1 - ordered, "generated" if ordered < 0.5 else None)


def _auc_of_words(words: NDArray[Any], is_real: NDArray[np.bool_]) -> float:
    """Score each image by the share of real ones among the other folds' images that have the same word."""
    codes = np.unique(words, return_inverse=True)[1]
    scores = np.empty(len(words))
    for rest, held in _folds(is_real).split(codes, is_real):
        counts = np.bincount(codes[rest], minlength=len(words))
        reals = np.bincount(codes[rest], is_real[rest], minlength=len(words))
        shares = (reals + is_real[rest].mean()) / (counts + 1)  # as if one more image had it: rare words say little
        scores[held] = shares[codes[held]]
    return _auc_at_least_half(is_real, scores)


def _auc_together(measures: Sequence[Measures], is_real: NDArray[np.bool_]) -> float:
    """Fit gradient boosting to all properties, and score each image by a fit on the other folds."""
    columns: list[NDArray[Any]] = []
    for trait in TRAITS:
        column = np.array([found[trait.name] for found in measures], float if trait.is_number else object)[:, None]
        # Rare words share a number: the classifier takes no more than 255.
        columns.append(column if trait.is_number else OrdinalEncoder(max_categories=100).fit_transform(column))
    table = np.hstack(columns)
    varies = np.array([len(np.unique(column)) > 1 for column in table.T])
    if not varies.any():
        return 0.5
    is_word = np.array([not trait.is_number for trait in TRAITS])
    classifier = HistGradientBoostingClassifier(categorical_features=is_word[varies], random_state=0)
    # Its threads wait for each other by spinning: on a busy machine two take a hundred times as long as one.
    with threadpool_limits(1, user_api="openmp"):
        p_real = cross_val_predict(classifier, table[:, varies], is_real, cv=_folds(is_real), method="predict_proba")
    return _auc_at_least_half(is_real, p_real[:, 1])


def _folds(is_real: NDArray[np.bool_]) -> Any:
    return StratifiedKFold(min(_FOLDS, is_real.sum(), (~is_real).sum()), shuffle=True, random_state=0)


def _auc_at_least_half(is_real: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the AUC of scores from other folds. Less than a half is chance: a score lacks the image's own label."""
    return max(0.5, float(roc_auc_score(is_real, scores)))


def _means_by_source(samples: Sequence[Sample], measures: Sequence[Measures]) -> list[SourceMeans]:
    names = [trait.name for trait in TRAITS if trait.is_number]
    table = np.array([[found[name] for name in names] for found in measures], float)
    keys = [(sample.is_real, sample.source) for sample in samples]
    return [_describe(*key, names, table, np.array([one == key for one in keys])) for key in sorted(set(keys))]


def _describe(
    is_real: bool, source: str, names: Sequence[str], table: NDArray[np.float64], is_mine: NDArray[np.bool_]
) -> SourceMeans:
    means: dict[str, float] = {}
    strengths: dict[str, float] = {}
    others: dict[str, float] = {}
    for name, column in zip(names, table.T, strict=True):
        mine, rest = (part[np.isfinite(part)] for part in (column[is_mine], column[~is_mine]))
        means[name] = float(mine.mean()) if mine.size else nan
        if not mine.size or not rest.size:
            continue
        spread = max(rest.std(), 1e-6 * abs(rest.mean()), 1e-9)  # the mean of equal numbers is not quite that number
        if abs(means[name] - rest.mean()) > spread:
            others[name] = float(rest.mean())
            strengths[name] = abs(means[name] - others[name]) / spread
    stands_out = {name: others[name] for name in sorted(strengths, key=lambda name: -strengths[name])}
    return SourceMeans(source, LABELS[is_real], int(is_mine.sum()), means, stands_out)
