"""``db``: ask the results database."""

import csv
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import (
    JsonOption,
    console,
    new_app,
    print_json,
    printable,
    read_settings,
    run,
)
from core.errors import FacesieveError, UsageError
from core.verdicts import Status

if TYPE_CHECKING:
    from rich.text import Text
    from sqlalchemy import Engine

app = new_app("Ask the results database: which images are AI-generated, how sure, by which model.")

LabelOption = Annotated[str | None, typer.Option(help="real, generated or unsure.")]
StatusOption = Annotated[Status | None, typer.Option(help="What became of the image.")]
PathOption = Annotated[str | None, typer.Option(help="Glob over the whole path, such as '*/cats/*.jpg'.")]
ScanOption = Annotated[int | None, typer.Option(help="Only what this scan scored last.")]
ModelOption = Annotated[str | None, typer.Option(help="Only verdicts of this model.")]


@app.command("list")
def list_command(
    label: LabelOption = None,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Lowest p_real, included.")] = None,
    max_score: Annotated[float | None, typer.Option(min=0, max=1, help="Highest p_real, included.")] = None,
    status: StatusOption = None,
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    order: Annotated[str, typer.Option(help="score, -score, path or time.")] = "path",
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 means all.")] = 50,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """List verdicts.

    Examples:
        db list --label generated --order score

        db list --min-score 0.4 --max-score 0.6 --csv --limit 0 > unsure.csv

        db list --status truncated --path '*/2024/*' --json
    """
    from db.queries import COLUMNS, Filter, count_verdicts, list_verdicts

    _check_choices(label, order)
    engine = _open()
    wanted = Filter(label, status, min_score, max_score, path, scan, model)
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
        total = count_verdicts(engine, wanted)
        console().print(f"{shown} of {total} verdicts" + (": more with --limit" if shown < total else ""))


@app.command()
def stats(
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count verdicts by label and by status, and draw the scores.

    Examples:
        db stats

        db stats --scan 3 --json
    """
    from db.queries import Filter, count_labels, count_statuses, score_histogram

    engine = _open()
    wanted = Filter(path=path, scan_id=scan, model=model)
    labels, statuses = count_labels(engine, wanted), count_statuses(engine, wanted)
    histogram = score_histogram(engine, wanted)
    if as_json:
        print_json({"labels": labels, "statuses": statuses, "histogram": histogram})
        return
    _print_counts("label", labels)
    _print_counts("status", statuses)
    _print_histogram(histogram)


@app.command()
def verify(
    scan: Annotated[
        int | None, typer.Argument(help="Number of the scan; the latest if left out.", show_default=False)
    ] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Also fail if anything is still to do.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that every listed image is accounted for: skipped, scored, failed by name, or pending.

    Exits with 1 if the books do not balance or a verdict that they count is missing.

    Examples:
        db verify

        db verify 3 --complete
    """
    from db.ledger import latest_scan, read_ledger, verify_scan

    engine = _open()
    scan_id = latest_scan(engine) if scan is None else scan
    problems = verify_scan(engine, scan_id)
    ledger = read_ledger(engine, scan_id)
    left = ledger.pending + ledger.undelivered + ledger.unlistable
    if complete and (left or ledger.scan_status != "listed"):
        problems.append(
            f"not complete: listing {ledger.scan_status}, {ledger.pending} pending, "
            f"{ledger.undelivered} in failed jobs, {ledger.unlistable} folders not listed"
        )
    if as_json:
        books = {name: getattr(ledger, name) for name in ("listed", "skipped", "ok", "failed", "pending")}
        books |= {"undelivered": ledger.undelivered, "cancelled": ledger.cancelled}
        print_json({"scan": scan_id, "balances": not problems, "problems": problems, **books})
    else:
        failed = ", ".join(f"{number} {status}" for status, number in ledger.failed.items()) or "0"
        console().print(
            f"scan {scan_id}: {ledger.listed} listed = {ledger.skipped} skipped + {ledger.ok} ok + {failed} failed + "
            f"{ledger.pending} pending + {ledger.undelivered} in failed jobs + {ledger.cancelled} cancelled"
        )
        for problem in problems:
            console().print(problem, markup=False)
    if problems:
        raise FacesieveError(f"scan {scan_id} does not pass: {len(problems)} problem{'s' * (len(problems) > 1)}")


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
    run(app)


def _open() -> "Engine":
    from db.engine import open_engine

    return open_engine(read_settings())


def _check_choices(label: str | None, order: str) -> None:
    from db.queries import LABELS, ORDERS

    if label is not None and label not in LABELS:
        raise UsageError(f"--label {label} is none of {', '.join(LABELS)}")
    if order not in ORDERS:
        raise UsageError(f"--order {order} is none of {', '.join(ORDERS)}")


def _print_verdicts(rows: Iterable[dict[str, Any]]) -> int:
    from rich.table import Table

    table = Table("p_real", "label or reason", "model", "scan", "image", box=None, pad_edge=False)
    for row in rows:
        score = f"{row['p_real']:.4f}" if row["p_real"] is not None else "-"
        what = row["label"] or f"{row['status']}: {row['reason']}"
        cells = (score, what, row["model"], str(row["scan_id"]), row["uri"])
        table.add_row(*(_plain(cell) for cell in cells))
    if table.row_count:
        console().print(table)
    return table.row_count


def _plain(text: str) -> "Text":
    from rich.text import Text

    return Text(printable(text), overflow="fold")


def _print_counts(title: str, counts: dict[str, int]) -> None:
    from rich.table import Table

    table = Table(title, "images", "share", box=None, pad_edge=False)
    total = sum(counts.values())
    for name, number in counts.items():
        table.add_row(name, f"{number:,}", f"{number / total:.1%}")
    console().print(table)


def _print_histogram(histogram: list[int]) -> None:
    width, highest = 40, max(histogram) or 1
    out = console()
    out.print("p_real", style="bold")
    for index, number in enumerate(histogram):
        bar = "█" * round(width * number / highest) or ("▏" if number else "")
        out.print(f"{index / len(histogram):.1f}-{(index + 1) / len(histogram):.1f} {bar} {number:,}")
