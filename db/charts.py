"""The shapes of a report's two drawings: rectangles in a box that is 100 high, however wide it is drawn."""

from typing import NamedTuple

from db.findings import MOMENTS, Throughput

HEIGHT = 100.0
#: What is there is seen, however little it is beside the highest.
LEAST = 1.5


class Bar(NamedTuple):
    """A rectangle one unit wide.

    Attributes:
        x: its left side.
        y: its upper side; 0 is the top.
        height: as it says.
        kind: ``real``, ``generated``, ``unsure`` or ``rate``.
        text: what it stands for.
    """

    x: int
    y: float
    height: float
    kind: str
    text: str


def score_bars(histogram: dict[str, list[int]]) -> list[Bar]:
    """Return the bars of a histogram of scores, those of different labels on top of each other.

    Args:
        histogram: numbers of images in equal parts of [0, 1], by label.
    """
    highest = max((sum(column) for column in zip(*histogram.values(), strict=True)), default=0) or 1
    bars, tops = [], [HEIGHT] * max(map(len, histogram.values()), default=0)
    for label, counts in histogram.items():
        for index, number in enumerate(counts):
            if number:
                height = max(number / highest * HEIGHT, LEAST)
                tops[index] -= height
                span = f"{index / len(counts):.3f} to {(index + 1) / len(counts):.3f}"
                bars.append(
                    Bar(index, max(tops[index], 0), height, label.partition(" ")[0], f"{span}: {number:,} {label}")
                )
    return bars


def rate_bars(throughput: Throughput) -> list[Bar]:
    """Return the bars of a throughput, one for each part of its time."""
    highest, step = max(throughput.rates) or 1, throughput.seconds / MOMENTS
    return [
        Bar(index, HEIGHT - height, height, "rate", f"after {duration(index * step)}: {rate:,.1f} images/s")
        for index, rate in enumerate(throughput.rates)
        if (height := max(rate / highest * HEIGHT, LEAST) if rate else 0)
    ]


def duration(seconds: float) -> str:
    """Write a time for people, such as ``1 h 5 min``, ``2 min 3 s`` or ``4.2 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
