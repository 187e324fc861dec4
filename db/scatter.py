"""The scores of two models against each other, drawn. Imported late: matplotlib is an extra."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from db.models import Model

FORMATS = (".png", ".svg")
_AGREE, _DIFFER = "#4477aa", "#cc3311"


def draw_scatter(points: Sequence[tuple[float, float]], first: Model, second: Model, note: str, out: Path) -> None:
    """Write a scatter plot.

    Args:
        points: scores of both models, each in [0, 1].
        first: model of the horizontal axis.
        second: model of the vertical axis.
        note: the title.
        out: file to write; its suffix is one of ``FORMATS``.

    Raises:
        OSError: it cannot be written.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    for colour, word, are_alike in ((_AGREE, "same label", True), (_DIFFER, "labels differ", False)):
        some = [(one, other) for one, other in points if (first.label(one) == second.label(other)) is are_alike]
        # Pixels even in an SVG: twenty thousand circles would be megabytes.
        ones, others = [one for one, _ in some], [other for _, other in some]
        label = f"{word}: {len(some):,}"
        axes.scatter(ones, others, s=6, color=colour, alpha=0.4, linewidths=0, rasterized=True, label=label)
    for model, draw in ((first, axes.axvline), (second, axes.axhline)):
        for threshold in {model.generated_below, model.real_above}:
            draw(threshold, color="0.5", linewidth=0.8, linestyle="--")
    axes.set_xlabel(f"p_real of {first.name} ({first.id[:8]})", parse_math=False)
    axes.set_ylabel(f"p_real of {second.name} ({second.id[:8]})", parse_math=False)
    axes.set_title(note, fontsize="medium")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    with rc_context({"svg.hashsalt": "facesieve", "svg.fonttype": "none"}):  # the same plot gives the same bytes
        figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix.lower() == ".svg" else {})
