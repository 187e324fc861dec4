"""``model audit``: what gives the class of labelled images away."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.errors import FacesieveError
from model.runtime import needs_extra

if TYPE_CHECKING:
    from model.audit import Audit

app = typer.Typer()
_SHOWN_FAILURES = 10


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Folder with real/ and generated/, or a manifest.csv.")],
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Only this part of the data set.")
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(metavar="AUC", min=0.5, max=1.0, help="Exit with 1 if anything gives the class away more."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what gives the class of labelled images away without the face: file format, sharpness, framing and so on.

    A network learns such things first, and fails where they do not hold. An AUC of 0.5 gives nothing away, 1 all.

    Examples:
        model audit ./faces --split train

        model audit ./faces --json --fail-above 0.75
    """
    from core.progress import ImageProgress
    from model.data import read_samples

    with needs_extra("train"):
        from model.audit import audit as run_audit

    settings = read_settings()
    samples = read_samples(data, split=split)
    with ImageProgress("measuring") as report:
        found = run_audit(samples, settings, report=report)
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found)
    worst = max([found.together, *found.findings], key=lambda finding: finding.auc or 0)
    if fail_above is not None and worst.auc is not None and worst.auc > fail_above:
        raise FacesieveError(f"{_spaced(worst.name)} gives the class away: AUC {worst.auc:.3f} is above {fail_above}")


def _show(found: "Audit") -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(f"{found.real:,} real and {found.generated:,} generated images\n")
    table = Table("property", "AUC", "real", "generated", "", box=None)
    for finding in [found.together, *found.findings]:
        if finding.auc is not None:
            advice = f"{finding.level}: {finding.advice}" if finding.level else ""
            values = (_short(finding.real), _short(finding.generated))
            table.add_row(_spaced(finding.name), f"{finding.auc:.3f}", *values, advice)
    out.print(table)
    out.print()
    table = Table("source", "class", "images", "stands out by its mean of", box=None)
    for source in found.sources:
        reasons = [
            f"{_spaced(name)} {_short(source.means[name])} (others {_short(mean)})"
            for name, mean in source.stands_out.items()
        ]
        table.add_row(Text(printable(source.source)), source.label, f"{source.images:,}", ", ".join(reasons))
    out.print(table)
    if found.uncertainty > 0.05:
        notice(f"with so few images, an AUC up to {0.5 + found.uncertainty:.2f} may be chance")
    if found.failures:
        notice(f"{len(found.failures):,} images could not be decoded and were left out:")
        for path, reason in found.failures[:_SHOWN_FAILURES]:
            notice(f"  {path}: {reason}")
        if len(found.failures) > _SHOWN_FAILURES:
            notice(f"  and {len(found.failures) - _SHOWN_FAILURES:,} more; --json names them all")


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _short(value: float | str | None) -> str:
    if isinstance(value, float):
        return "-" if isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return value or "-"


def _as_json(found: "Audit") -> dict[str, Any]:
    from dataclasses import asdict

    document = asdict(found)
    document["failures"] = [{"path": str(path), "reason": reason} for path, reason in found.failures]
    for source in document["sources"]:  # JSON has no nan
        source["means"] = {name: None if isnan(mean) else mean for name, mean in source["means"].items()}
    return document
