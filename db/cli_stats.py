"""``db stats``: verdicts in numbers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import JsonOption, cell, console, notice, print_json, read_settings
from core.errors import UsageError
from db.cli_options import ModelOption, PathOption, ScanOption

if TYPE_CHECKING:
    from db.statistics import Group, Statistics
    from db.throughput import Pace

app = typer.Typer()

#: Rows of a table in a terminal; JSON has more.
MOST_ROWS = 30
BAR = 40


@app.command()
def stats(
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    by: Annotated[str | None, typer.Option(help="Count groups, too: by model, folder, scan, day or reason.")] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="Levels of folders, below the one that all images have in common.")
    ] = 1,
    exact: Annotated[bool, typer.Option("--exact", help="Read every verdict, however many there are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count verdicts by label, status and reason, draw the scores, and tell how fast the workers were.

    Beyond half a million verdicts, numbers are estimated from a sample, with margins that hold with 95 % confidence.
    Failures are counted nevertheless, up to as many of a status. Small groups want --exact or a filter.

    Examples:
        db stats

        db stats --scan 3 --by folder --depth 2

        db stats --by reason --exact --json
    """
    from db.engine import open_engine
    from db.filters import Filter
    from db.statistics import GROUPINGS, read_statistics
    from db.throughput import read_throughput

    if by is not None and by not in GROUPINGS:
        raise UsageError(f"--by {by} is none of {', '.join(GROUPINGS)}")
    engine = open_engine(read_settings())
    if exact:
        notice("note: reading every verdict; ten millions take minutes")
    found = read_statistics(engine, Filter(path=path, scan_id=scan, model=model), by=by, depth=depth, is_exact=exact)
    # Jobs are not of one folder.
    paces = [] if path is not None else read_throughput(engine, scan_id=scan, model=model, is_exact=exact)
    if as_json:
        print_json(_document(found, by, paces))
    else:
        _print_statistics(found, by)
        _print_paces(paces)


def _document(found: "Statistics", by: str | None, paces: list["Pace"]) -> dict[str, Any]:
    from dataclasses import asdict

    stages = [
        {stage: {"median": middle, "p95": high} for stage, (middle, high) in pace.seconds.items()} for pace in paces
    ]
    return {
        "estimated": found.sample is not None,
        **asdict(found),
        "by": by,
        "throughput": [asdict(pace) | {"seconds": stage} for pace, stage in zip(paces, stages, strict=True)],
    }


def _print_statistics(found: "Statistics", by: str | None) -> None:
    from db.statistics import about

    out = console()
    out.print(f"{about(found.verdicts, found.margin)} verdicts")
    if found.sample is not None:
        out.print(f"Estimated from a sample of {found.sample:,}, ± with 95 % confidence: --exact reads them all.")
    _print_counts("label", found.labels, found.margins)
    _print_counts("status", found.statuses, found.margins)
    if found.reasons and by != "reason":
        _print_groups("failure", found.reasons, left_out=0)
    _print_histogram(found.histogram)
    if by is not None:
        _print_groups(by, found.groups, left_out=found.groups_left_out)


def _print_counts(title: str, counts: dict[str, int], margins: dict[str, int]) -> None:
    from rich.table import Table

    from db.statistics import about

    table = Table(title, "images", "share", box=None, pad_edge=False)
    total = sum(counts.values())
    for name, number in counts.items():
        table.add_row(cell(name), about(number, margins[name]), f"{number / total:.1%}")
    console().print(table)


def _print_groups(title: str, groups: list["Group"], *, left_out: int) -> None:
    from rich.table import Table

    from db.statistics import about

    labels = list(dict.fromkeys(label for group in groups for label in group.labels))
    table = Table(title, "images", *labels, *(["failed"] if labels else []), box=None, pad_edge=False)
    for group in groups[:MOST_ROWS]:
        parts = [*(group.labels.get(label, 0) for label in labels), group.failed] if labels else []
        table.add_row(cell(group.name), about(group.images, group.margin), *(f"{part:,}" for part in parts))
    console().print(table)
    if more := left_out + len(groups[MOST_ROWS:]):
        console().print(f"and {more:,} more" + (": see --json" if len(groups) > MOST_ROWS else ""))


def _print_histogram(histogram: list[int]) -> None:
    highest = max(histogram) or 1
    out = console()
    out.print("p_real", style="bold")
    for index, number in enumerate(histogram):
        bar = "█" * round(BAR * number / highest) or ("▏" if number else "")
        out.print(f"{index / len(histogram):.1f}-{(index + 1) / len(histogram):.1f} {bar} {number:,}")


def _print_paces(paces: list["Pace"]) -> None:
    from rich.table import Table

    from db.statistics import about

    if not paces:
        return
    stages = list(paces[0].seconds)
    titles = [f"{stage} s/job (p95)" for stage in stages]
    table = Table("worker", "engine", "jobs", "images", "images/s", *titles, box=None, pad_edge=False)
    for pace in paces[:MOST_ROWS]:
        times = (f"{middle:.2f} ({high:.2f})" for middle, high in pace.seconds.values())
        amounts = (about(number, pace.margin * number // pace.jobs) for number in (pace.jobs, pace.images))
        numbers = (*amounts, f"{pace.images_per_second:,.1f}")
        table.add_row(cell(pace.worker), cell(f"{pace.engine} {pace.precision}"), *numbers, *times)
    console().print(table)
    if len(paces) > MOST_ROWS:
        console().print(f"and {len(paces) - MOST_ROWS:,} more workers: see --json")
