"""``db``: ask the results database."""

import csv
import gc
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import (
    JsonOption,
    cell,
    console,
    new_app,
    print_json,
    read_settings,
    run,
)
from core.errors import UsageError
from db import (
    cli_compare,
    cli_duplicates,
    cli_export,
    cli_grant,
    cli_images,
    cli_metrics,
    cli_models,
    cli_report,
    cli_review,
    cli_stats,
    cli_upkeep,
)
from db.cli_options import (
    LabelOption,
    MaxScoreOption,
    MinScoreOption,
    ModelOption,
    PathOption,
    ScanOption,
    StatusOption,
    read_filter,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = new_app("Ask the results database: which images are AI-generated, how sure, by which model.")
app.add_typer(cli_compare.app)
app.add_typer(cli_duplicates.app)
app.add_typer(cli_export.app)
app.add_typer(cli_grant.app)
app.add_typer(cli_images.app)
app.add_typer(cli_metrics.app)
app.add_typer(cli_models.app)
app.add_typer(cli_report.app)
app.add_typer(cli_review.app)
app.add_typer(cli_stats.app)
app.add_typer(cli_upkeep.app)


@app.command("list")
def list_command(
    label: LabelOption = None,
    min_score: MinScoreOption = None,
    max_score: MaxScoreOption = None,
    status: StatusOption = None,
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="score, -score, path or time; if left out, score with a filter by label, score or scan, else path.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 means all.")] = 50,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """List verdicts.

    Ten millions take no longer than a hundred, but for --order time, for a --path that begins with a wildcard, and for
    --order path with a filter that passes over most images: these read until they have found enough.

    Examples:
        db list --label generated --order score

        db list --min-score 0.4 --max-score 0.6 --csv --limit 0 > unsure.csv

        db list --status truncated --path '*/2024/*' --json
    """
    from db.queries import COLUMNS, ORDERS, estimate_verdicts, list_verdicts

    wanted = read_filter(label, status, min_score, max_score, path, scan, model)
    if order is None:  # whichever has an index
        order = "path" if (label, min_score, max_score, scan) == (None, None, None, None) else "score"
    if order not in ORDERS:
        raise UsageError(f"--order {order} is none of {', '.join(ORDERS)}")
    engine = _open()
    rows = list_verdicts(engine, wanted, order=order, limit=limit or None)
    if as_json:
        for row in rows:
            print_json(row)
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    else:
        shown = _print_verdicts(rows)
        total, is_estimate = estimate_verdicts(engine, wanted) if shown == limit else (shown, False)
        text = f"about {max(total, shown):,}" if is_estimate else str(total)
        console().print(f"{shown} of {text} verdicts" + (": more with --limit" if shown < total else ""))


@app.command()
def upgrade() -> None:
    """Create the tables, or bring them to this program's version. Harmless if nothing is to be done.

    Example:
        db --database postgresql+psycopg://facesieve@localhost/facesieve upgrade
    """
    from core.settings import redact
    from db.engine import make_engine, schema_version
    from db.engine import upgrade as upgrade_schema

    settings = read_settings()
    engine = make_engine(settings)
    before = schema_version(engine)
    upgrade_schema(engine)
    console().print(f"{redact(settings.sql_url)}: schema {before or 'none'} -> {schema_version(engine)}", markup=False)


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `db list | head` ends quietly
    # A quarter of a short command would be spent on looking through all that was imported for garbage.
    gc.set_threshold(50_000)
    try:
        run(app)
    finally:
        gc.freeze()  # for the interpreter's end


def _open() -> "Engine":
    from db.engine import open_engine

    return open_engine(read_settings())


def _print_verdicts(rows: Iterator[dict[str, Any]]) -> int:
    """Print a table for every thousand rows, so that memory does not hold millions. Returns how many there were."""
    from rich.table import Table

    shown = 0
    while page := list(islice(rows, 1000)):
        names = ("p_real", "label or reason", "model", "scan", "image")
        table = Table(*names, box=None, pad_edge=False, show_header=not shown)
        for row in page:
            score = f"{row['p_real']:.4f}" if row["p_real"] is not None else "-"
            what = row["label"] or f"{row['status']}: {row['reason']}"
            table.add_row(*map(cell, (score, what, row["model"], str(row["scan_id"]), row["uri"])))
        console().print(table)
        shown += len(page)
    return shown
