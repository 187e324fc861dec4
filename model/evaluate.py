"""Measure a model on labelled images: overall, by source and generator, and on changed images."""

import platform
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.manifest import Manifest
from core.settings import Settings
from model.calibrate import probability
from model.data import LABELS, Sample, Split, read_samples
from model.metrics import Estimate, Metrics, Scores, average_precision, measure, roc_auc, share
from model.predictor import load_predictor
from model.robustness import AS_SERVED, CHANGES
from model.scoring import Failure, score

_PACKAGES = ("facesieve", "tensorflow", "keras", "numpy", "opencv-python-headless", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one class that have a source or a generator in common.

    Attributes:
        name: of the source or generator.
        label: ``real`` or ``generated``.
        images: how many.
        accuracy: at a calibrated probability of 0.5, with Wilson's interval.
        mean_score: mean of ``p_real``.
        roc_auc: of these images against all of the other class.
    """

    name: str
    label: str
    images: int
    accuracy: Estimate
    mean_score: float
    roc_auc: float


@dataclass(frozen=True, slots=True)
class Changed:
    """All images, changed in one way before they were resized.

    Attributes:
        name: of the change, see ``model.robustness``.
        accuracy: at a calibrated probability of 0.5.
        roc_auc: as in ``Metrics``.
        average_precision: as in ``Metrics``.
    """

    name: str
    accuracy: float
    roc_auc: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured, and of what.

    Attributes:
        manifest: of the model.
        data: the data set.
        split: part of it, or ``all``.
        limit: images of each class that were drawn at most; None if all were taken.
        evaluated_at: when.
        engine: what ran the network.
        precision: of its arithmetic.
        versions: of Python and packages.
        scores: of every image.
        metrics: overall.
        sources: worst accuracy first.
        generators: likewise; images whose generator is not known are in none.
        robustness: unchanged images first; empty if it was not asked for.
        failures: images that could not be decoded; they are in no number above.
    """

    manifest: Manifest
    data: str
    split: str
    limit: int | None
    evaluated_at: datetime
    engine: str
    precision: str
    versions: dict[str, str]
    scores: Scores
    metrics: Metrics
    sources: tuple[Group, ...]
    generators: tuple[Group, ...]
    robustness: tuple[Changed, ...]
    failures: tuple[Failure, ...]

    def as_json(self) -> dict[str, Any]:
        """Return all but the score of each image, for ``json.dumps``."""
        return {
            "model": {"id": self.manifest.id, **self.manifest.model_dump(mode="json")},
            "data": self.data,
            "split": self.split,
            "limit": self.limit,
            "evaluated_at": self.evaluated_at.isoformat(),
            "engine": self.engine,
            "precision": self.precision,
            "versions": self.versions,
            "positive": "generated",
            "metrics": asdict(self.metrics),
            "sources": [asdict(group) for group in self.sources],
            "generators": [asdict(group) for group in self.generators],
            "robustness": [asdict(changed) for changed in self.robustness],
            "failures": [asdict(failure) for failure in self.failures],
        }


def evaluate(
    folder: Path,
    data: Path,
    settings: Settings,
    *,
    split: Split | None = "test",
    limit: int | None = None,
    is_robustness_wanted: bool = True,
) -> Evaluation:
    """Measure the model in a folder.

    Args:
        folder: of the artifact.
        data: labelled data set.
        settings: batch size, limits on images.
        split: part of the data set; None takes all.
        limit: draw at most so many images of each class, the same ones each time.
        is_robustness_wanted: whether to score each image ten times, changed in different ways.

    Raises:
        SourceError: the data set cannot be used.
        ModelError: the artifact cannot be used.
    """
    samples = draw(read_samples(data, split=split), limit)
    predictor = load_predictor(folder, precision="float32", batch_size=settings.batch_size)
    manifest = predictor.manifest
    changes = CHANGES if is_robustness_wanted else {AS_SERVED: CHANGES[AS_SERVED]}
    scored = score(predictor, samples, settings, doing="evaluating", changes=changes)
    is_real = scored.is_real
    by_change = {name: Scores(is_real, p, probability(p, manifest.calibration)) for name, p in scored.p_real.items()}
    scores = by_change[AS_SERVED]
    return Evaluation(
        manifest=manifest,
        data=str(data),
        split=split or "all",
        limit=limit,
        evaluated_at=datetime.now(UTC),
        engine=predictor.engine,
        precision=predictor.precision,
        versions=_versions(),
        scores=scores,
        metrics=measure(scores, manifest),
        sources=_groups(scores, [sample.source for sample in scored.samples]),
        generators=_groups(scores, [sample.generator or None for sample in scored.samples]),
        robustness=tuple(_changed(name, one) for name, one in by_change.items()) if is_robustness_wanted else (),
        failures=scored.failures,
    )


def draw(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """Draw at most so many images of each class, the same ones each time.

    Args:
        samples: to draw from.
        limit: of each class; None takes all.
    """
    if limit is None:
        return list(samples)
    shuffled = [samples[place] for place in np.random.default_rng(0).permutation(len(samples))]
    drawn = [[one for one in shuffled if one.is_real == is_real][:limit] for is_real in (False, True)]
    return sorted([*drawn[0], *drawn[1]], key=lambda one: one.path)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # some come under other names, too
            versions[name] = version(name)
    return versions


def _groups(scores: Scores, names: Iterable[str | None]) -> tuple[Group, ...]:
    rows: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for row, (name, is_real) in enumerate(zip(names, scores.is_real.tolist(), strict=True)):
        if name is not None:
            rows[name, is_real].append(row)
    groups = [_group(scores, name, is_real, np.array(chosen)) for (name, is_real), chosen in rows.items()]
    return tuple(sorted(groups, key=lambda group: (group.accuracy.value, group.name, group.label)))


def _group(scores: Scores, name: str, is_real: bool, rows: NDArray[np.intp]) -> Group:
    own = scores.take(rows)
    compared = scores.take(np.concatenate([rows, np.flatnonzero(scores.is_real != is_real)]))
    return Group(
        name=name,
        label=LABELS[is_real],
        images=len(rows),
        accuracy=share((own.probability > 0.5) == is_real),
        mean_score=float(own.p_real.mean()),
        roc_auc=roc_auc(compared.is_real, compared.p_real),
    )


def _changed(name: str, scores: Scores) -> Changed:
    return Changed(
        name=name,
        accuracy=float(((scores.probability > 0.5) == scores.is_real).mean()),
        roc_auc=roc_auc(scores.is_real, scores.p_real),
        average_precision=average_precision(scores.is_real, scores.p_real),
    )
