"""``model evaluate`` and ``model calibrate``."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.errors import UsageError
from model.runtime import needs_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.settings import Settings
    from model.evaluate import Evaluation, Group
    from model.metrics import Estimate
    from model.scoring import Failure

app = typer.Typer()

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of an artifact, or path of its folder.")]
_DATA_HELP = "Folder with real/ and generated/, or with a manifest.csv, or that file."
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help=_DATA_HELP)]
SplitOption = Annotated[
    Literal["train", "val", "test", "all"], typer.Option(help="The part of the data set that is used.")
]
BatchSizeOption = Annotated[int | None, typer.Option(min=1, help="Images in a forward pass.")]
_SHOWN_FAILURES = 10
_SHOWN_GROUPS = 8


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help=f"{_DATA_HELP} Or --reviewed.", show_default=False)
    ] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="Use the images that were labelled with `db review`, whatever the split.")
    ] = False,
    split: SplitOption = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Draw at most so many images of each class.")] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Also score each image changed in nine ways.")
    ] = True,
    out: Annotated[Path | None, typer.Option(help="Write a report to this HTML file.")] = None,
    batch_size: BatchSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on labelled images: overall, by source and generator, on compressed, small and blurred images.

    Examples:
        model evaluate card ./faces --out report.html

        model evaluate card ./faces --split val --no-robustness --json

        model evaluate card --reviewed
    """
    from core.manifest import find_artifact
    from core.settings import redact

    if (data is None) != reviewed:
        raise UsageError("say what to measure on: either DATA, labelled images, or --reviewed")
    settings = read_settings(batch_size=batch_size)
    folder = find_artifact(model, settings)
    with needs_extra("train"), _labelled(data, settings) as labelled:
        from model.evaluate import evaluate as run

        found = run(
            folder,
            labelled,
            settings,
            split=None if split == "all" or reviewed else split,
            limit=limit,
            is_robustness_wanted=robustness,
        )
        if reviewed:
            found = replace(found, data=f"reviewed images of {redact(settings.sql_url)}")
            notice("note: reviewed images tell of all others only if they were drawn with `db review --order random`")
        if as_json:
            print_json(found.as_json())
        else:
            _print_evaluation(found)
        if out is not None:
            from model.report import write_report

            write_report(found, out)
            notice(f"wrote {out}")


@app.command()
def calibrate(
    model: ModelArgument,
    data: DataArgument,
    split: SplitOption = "val",
    fpr: Annotated[float, typer.Option(help="Highest share of real images that may be labelled generated.")] = 0.01,
    fnr: Annotated[float, typer.Option(help="Highest share of generated images that may be labelled real.")] = 0.05,
    method: Annotated[
        Literal["platt", "temperature"], typer.Option(help="Fit slope and offset of the scores, or the slope alone.")
    ] = "platt",
    batch_size: BatchSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit probabilities and label thresholds on labelled images, and write them into the model's manifest.

    An image is labelled generated at or below one score, real above another, and unsure between them. The images must
    be none that the model was trained on. Its weights, its id and the scores in the database stay as they are.

    Example:
        model calibrate card ./faces --split val --fpr 0.01
    """
    from core.manifest import find_artifact

    settings = read_settings(batch_size=batch_size)
    folder = find_artifact(model, settings)
    with needs_extra("train"):
        from model.calibrate import calibrate as run

        done = run(folder, data, settings, split=None if split == "all" else split, fpr=fpr, fnr=fnr, method=method)
    _print_failures(done.failures)
    if done.real * fpr < 1:
        notice(f"{fpr:g} of {done.real} real images is less than one: the threshold is below all of them, and no finer")
    if as_json:
        print_json(done.as_json())
        return
    manifest = done.manifest
    rows = {
        "images": f"{done.real:,} real, {done.generated:,} generated",
        "calibration error": f"{done.error_before:.4f} before, {done.error_after:.4f} after",
        "generated": f"at or below {manifest.generated_below:.4g}: {done.false_positive_rate:.2%} of the real images",
        "real": f"above {manifest.real_above:.4g}: {done.false_negative_rate:.2%} of the generated images",
        "unsure": f"between: {done.unsure:.2%} of all images",
    }
    console().print(f"calibrated {manifest.name}, id {manifest.id[:12]} as before")
    for name, value in rows.items():
        console().print(f"{name:20}{value}", markup=False)
    console().print(
        "Labels in the database follow when a worker starts with this model: stop those that run, then `worker start` "
        f"--model {printable(model)}, or the next `producer run`. Nothing is scored again.",
        markup=False,
    )


@app.command()
def quantise(model: ModelArgument, data: DataArgument, split: SplitOption = "val", as_json: JsonOption = False) -> None:
    """Make an 8-bit network for CPUs, check it on labelled images, and keep it in the cache if it passes.

    Workers with the same data directory use it when they are started with --precision int8. The area under the ROC
    curve may drop by 0.002, and scores may change by 0.01 on average.

    Example:
        model quantise card ./faces
    """
    from core.manifest import find_artifact

    settings = read_settings()
    folder = find_artifact(model, settings)
    with needs_extra("quantise"):
        from model.quantise import quantise as run

        done = run(folder, data, settings, split=None if split == "all" else split)
    if as_json:
        print_json(done.as_json())
        return
    console().print(
        f"{done.model} in int8, on {done.images:,} images: AUC {done.auc_int8:.4f}, in float32 {done.auc_float32:.4f}; "
        f"p_real changes by {done.mean_drift:.4f} on average, by {done.largest_drift:.3f} at most",
        markup=False,
    )


def _labelled(data: Path | None, settings: "Settings") -> AbstractContextManager[Path]:
    if data is not None:
        return nullcontext(data)
    from model.reviewed import reviewed_images

    return reviewed_images(settings)


def _print_evaluation(found: "Evaluation") -> None:
    metrics = found.metrics
    untrained = "" if found.manifest.trained else " (untrained: its scores mean nothing)"
    calibrated = "calibrated" if found.manifest.calibration else "not calibrated"
    images = f"{metrics.real:,} real and {metrics.generated:,} generated images"
    console().print(f"{found.manifest.name}{untrained}, {calibrated}, on {images}", markup=False)
    _print_failures(found.failures)
    table = _table("", "", "95 % interval")
    for name, estimate in (
        ("accuracy", metrics.accuracy),
        ("labelled, not unsure", metrics.coverage),
        ("  accuracy of these", metrics.labelled_accuracy),
        ("real labelled generated", metrics.false_positive_rate),
        ("generated labelled real", metrics.false_negative_rate),
        ("ROC AUC", metrics.roc_auc),
        ("average precision", metrics.average_precision),
        ("equal error rate", metrics.equal_error_rate),
        ("recall at 1 % false positives", metrics.recall_at_1_percent),
        ("recall at 5 % false positives", metrics.recall_at_5_percent),
        ("expected calibration error", metrics.calibration_error),
    ):
        table.add_row(name, *_with_interval(estimate))
        if name == "accuracy":
            table.add_row("  of naming the larger class", f"{metrics.baseline:.3f}", "")
    console().print(table)
    _print_groups("source", found.sources)
    _print_groups("generator", found.generators)
    if found.robustness:
        table = _table("images", "accuracy", "AUC", "average precision")
        for one in found.robustness:
            table.add_row(one.name, f"{one.accuracy:.3f}", f"{one.roc_auc:.3f}", f"{one.average_precision:.3f}")
        console().print(table)
    console().print("positive is generated: recall is of generated images, a false positive is a real one")


def _print_groups(kind: str, groups: "Sequence[Group]") -> None:
    if not groups:
        return
    table = _table(kind, "label", "images", "accuracy", "95 % interval", "mean score", "AUC")
    for group in groups[:_SHOWN_GROUPS]:
        accuracy = _with_interval(group.accuracy)
        numbers = (f"{group.images:,}", *accuracy, f"{group.mean_score:.3f}", f"{group.roc_auc:.3f}")
        table.add_row(_plain(group.name), group.label, *numbers)
    console().print(table)
    if len(groups) > _SHOWN_GROUPS:
        console().print(f"{len(groups) - _SHOWN_GROUPS} more {kind}s did better: see --json or --out")


def _print_failures(failures: "Sequence[Failure]") -> None:
    if failures:
        notice(f"not decoded, and so in no number: {len(failures):,} images")
    for failure in failures[:_SHOWN_FAILURES]:
        notice(f"  {failure.path}: {failure.reason}")
    if len(failures) > _SHOWN_FAILURES:
        notice(f"  and {len(failures) - _SHOWN_FAILURES:,} more")


def _with_interval(estimate: "Estimate | None") -> tuple[str, str]:
    if estimate is None:
        return "-", ""
    return f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}"


def _plain(text: str) -> Any:
    """Return text that rich does not read as markup, whatever it holds."""
    from rich.text import Text

    return Text(printable(text))


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if not place or name == "label" else "right")
    return table
