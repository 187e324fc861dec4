"""An evaluation as one HTML file that needs nothing else: no network, no scripts."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from core.errors import UsageError
from model.evaluate import Evaluation
from model.metrics import RESAMPLES, Estimate
from model.plots import draw_groups, draw_histogram, draw_reliability, draw_roc


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report of an evaluation.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(render(evaluation), encoding="utf-8", errors="backslashreplace")  # names need not be UTF-8
    except OSError as error:
        raise UsageError(f"report {path} cannot be written: {error.strerror}") from error


def render(evaluation: Evaluation) -> str:
    """Return the report of an evaluation as HTML. Whatever is not ours in it, file names say, is escaped."""
    environment = Environment(
        loader=PackageLoader("model"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["interval"] = _interval
    plots = {
        "ROC curve": draw_roc(evaluation.scores),
        "Scores": draw_histogram(evaluation.scores),
        "Reliability": draw_reliability(evaluation.scores),
        "Accuracy by source": draw_groups(evaluation.sources),
    }
    return environment.get_template("evaluation.html").render(
        found=evaluation,
        metrics=evaluation.metrics,
        manifest=evaluation.manifest,
        resamples=RESAMPLES,
        # Made by matplotlib, which escapes the names in it.
        plots={name: Markup(svg) for name, svg in plots.items()},  # noqa: S704
    )


def _interval(estimate: Estimate | None) -> str:
    return f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate else ""
