"""The plots of an evaluation, as SVG that takes the colour of text and lines from the page around it."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from model.evaluate import Group
from model.metrics import Scores, reliability

#: Blue and orange: told apart by the colour-blind, and clear on white as on black.
_COLOURS = {"real": "#2f8fd0", "generated": "#d9701f"}
#: No other part of a plot has this colour; it becomes the page's.
_INK = "#010203"
_STYLE: Any = {
    "svg.hashsalt": "facesieve",  # the same plot gives the same bytes
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_WIDTH = 4.6  # inches
_LONGEST_NAME = 32


def draw_roc(scores: Scores) -> str:
    """Draw recall of generated images over the share of real images that are called generated."""
    with _axes("false-positive rate (real called generated)", "recall (generated found)") as (axes, svg):
        false_positives, recall, _ = roc_curve(~scores.is_real, -scores.p_real)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        axes.plot(false_positives, recall, color=_COLOURS["generated"])
    return svg.getvalue()


def draw_histogram(scores: Scores) -> str:
    """Draw how the scores of each class are spread; classes of different size are of equal area."""
    with _axes("p_real", "share of the class's images") as (axes, svg):
        for label, chosen in (("real", scores.is_real), ("generated", ~scores.is_real)):
            p_real = scores.p_real[chosen]
            weights = np.full(len(p_real), 1 / len(p_real))
            colour = _COLOURS[label]
            axes.hist(p_real, 40, range=(0, 1), weights=weights, color=colour, alpha=0.6, label=label)
        axes.autoscale(axis="y")
        axes.set_ylim(0)
        axes.legend()
    return svg.getvalue()


def draw_reliability(scores: Scores) -> str:
    """Draw how often images are generated that are called so with a given probability."""
    with _axes("calibrated probability of generated", "share that is generated") as (axes, svg):
        count, predicted, observed = reliability(~scores.is_real, 1 - scores.probability)
        filled = count > 0
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
        axes.plot(predicted[filled], observed[filled], color=_COLOURS["generated"], linewidth=1)
        sizes = 8 + 150 * count[filled] / count.max()
        axes.scatter(predicted[filled], observed[filled], sizes, color=_COLOURS["generated"], alpha=0.7, clip_on=False)
    return svg.getvalue()


def draw_groups(groups: Sequence[Group]) -> str:
    """Draw the accuracy of each source or generator, with its interval; the worst is on top."""
    with _axes("accuracy", "", height=0.6 + 0.24 * len(groups)) as (axes, svg):
        places = np.arange(len(groups))[::-1]
        values = np.array([group.accuracy.value for group in groups])
        # Rounded, an interval can end a hair inside the value.
        below = np.maximum(values - [group.accuracy.low for group in groups], 0)
        above = np.maximum([group.accuracy.high for group in groups] - values, 0)
        colours = [_COLOURS[group.label] for group in groups]
        axes.barh(places, values, color=colours, alpha=0.6)
        axes.errorbar(values, places, xerr=[below, above], fmt="none", ecolor=_INK, elinewidth=1)
        # Names are not ours: a dollar sign must not start a formula.
        axes.set_yticks(places, [_shorten(group.name) for group in groups], parse_math=False)
        axes.set_ylim(-0.6, len(groups) - 0.4)
    return svg.getvalue()


@contextmanager
def _axes(x_label: str, y_label: str, *, height: float = 3.2) -> Iterator[tuple[Axes, StringIO]]:
    """Give axes to draw on, from 0 to 1, and a text that holds the SVG afterwards."""
    svg = StringIO()
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name in another script: a box
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_label, ylabel=y_label)
        yield axes, svg
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    text = svg.getvalue().replace(_INK, "currentColor")
    svg.seek(0)
    svg.truncate()
    svg.write(text[text.index("<svg") :])  # without the XML declaration, which HTML has no place for


def _shorten(name: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…"
