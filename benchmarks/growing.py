"""What grows while images pass through: samples of what processes hold, and the slope of each measure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MILLION = 1_000_000
MOST_SAMPLES = 100  # of each measure, that are kept in the file of the results

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        images: that had a verdict.
        seconds: since the start.
        found: values by process and measure.
    """

    images: int
    seconds: float
    found: dict[tuple[str, str], float]


def slope(images: Sequence[float], values: Sequence[float]) -> float:
    """Return the growth per 10^6 images: the median of the slopes between all pairs of samples."""
    x, y = np.asarray(images, float), np.asarray(values, float)
    later, earlier = np.tril_indices(len(x), -1)
    apart = x[later] - x[earlier]
    slopes = (y[later] - y[earlier])[apart > 0] / apart[apart > 0]
    return float(np.median(slopes)) * MILLION if slopes.size else 0.0


def growth(samples: Sequence[Sample], left: dict[tuple[str, str], float]) -> list[Row]:
    """Return one row for each process and measure, of the second half of a run."""
    second = [sample for sample in samples if sample.images >= samples[-1].images / 2]
    tenth = -(-len(second) // 10)
    series: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in second:
        for key, value in sample.found.items():
            series[key].append(value)
    images = [sample.images for sample in second]
    return [
        {
            "process": process,
            "measure": measure,
            "first": short(samples[0].found[process, measure]),
            "half": short(np.median(values[:tenth])),
            "last": short(np.median(values[-tenth:])),
            "growth": short(slope(images, values)),
            "when_done": short(left[process, measure]) if (process, measure) in left else None,
        }
        for (process, measure), values in series.items()
    ]


def short(value: float) -> float:
    """Return two decimals of a number: more would not be repeated."""
    return round(float(value), 2)


def thin(samples: Sequence[Sample]) -> list[Row]:
    """Return at most ``MOST_SAMPLES`` of the samples, as rows."""
    kept = samples[:: -(-len(samples) // MOST_SAMPLES)]
    return [
        {"images": sample.images, "seconds": short(sample.seconds)}
        | {f"{process}: {measure}": short(value) for (process, measure), value in sample.found.items()}
        for sample in kept
    ]
