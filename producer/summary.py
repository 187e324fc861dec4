"""What a scan found, for people and for scripts."""

from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from core.cli import print_json, printable
from core.verdicts import Status
from db.filters import Filter
from db.ledger import Ledger, read_ledger
from db.queries import list_verdicts
from db.statistics import about, read_statistics
from producer.enqueue import Tally

MOST_LIKELY = 5


def summarise(engine: Engine, scan_id: int, prefixes: tuple[str, ...] | None) -> dict[str, Any]:
    """Return what is known of the sources of a scan, verdicts of earlier scans included.

    Args:
        engine: of the database.
        scan_id: the scan that has just ended.
        prefixes: of a ``producer.scan.Scan``; None means to count only what this scan has scored.
    """
    ledger = read_ledger(engine, scan_id)
    is_whole = prefixes is not None
    wanted = Filter(model=ledger.model, under=prefixes or (), scan_id=None if is_whole else scan_id)
    found = read_statistics(engine, wanted)
    failures = {status: number for status, number in found.statuses.items() if status != Status.OK}
    likely = replace(wanted, status=Status.OK)
    return {
        "scan": scan_id,
        "model": ledger.model,
        "listed": ledger.listed,
        "skipped": ledger.skipped,
        "scored": ledger.scored,
        "undelivered": ledger.undelivered,
        "cancelled": ledger.cancelled,
        "ignored": ledger.ignored,
        "unlistable": ledger.unlistable,
        "pending": ledger.pending,
        "job_errors": ledger.errors,
        "seconds": round(ledger.seconds, 3),
        "images_per_second": round(ledger.scored / ledger.seconds, 1) if ledger.seconds else None,
        "earlier_scans_counted": is_whole,
        "labels": found.labels,
        "failures": failures,
        "estimated": found.sample is not None,
        "margins": {name: margin for name, margin in found.margins.items() if margin},
        "most_likely_generated": [
            {name: row[name] for name in ("uri", "p_real", "label")}
            for row in list_verdicts(engine, likely, order="score", limit=MOST_LIKELY)
        ],
    }


def print_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print it as a few short tables."""
    rate = f" in {summary['seconds']:.1f} s ({summary['images_per_second']:,} images/s)" if summary["seconds"] else ""
    console.print(
        f"scan {summary['scan']}: {summary['listed']:,} images listed, {summary['skipped']:,} already scored or listed "
        f"twice, {summary['scored']:,} scored now{rate}"
    )
    if not summary["earlier_scans_counted"]:
        console.print("Of what a list names, only what this scan has scored is counted here:")
    counts = Table("label or failure", "images", box=None, pad_edge=False)
    for name, number in (summary["labels"] | summary["failures"]).items():
        counts.add_row(name, about(number, summary["margins"].get(name, 0)))
    console.print(counts)
    if summary["most_likely_generated"]:
        likely = Table("p_real", "label", "most likely generated", box=None, pad_edge=False)
        for row in summary["most_likely_generated"]:
            likely.add_row(f"{row['p_real']:.4f}", row["label"], Text(printable(row["uri"]), overflow="fold"))
        console.print(likely)
    for reason, number in summary["job_errors"].items():
        console.print(f"{number} jobs failed: {printable(str(reason))}", markup=False)
    if any("untrained" in label for label in summary["labels"]):
        console.print(
            "The model is untrained: its weights are random, and its scores mean nothing.", style="bold yellow"
        )


def print_tally(console: Console, tally: Tally, *, as_json: bool) -> None:
    """Print what an enqueue has sent."""
    if as_json:
        print_json(
            {"scan": tally.scan_id, "listed": tally.listed, "skipped": tally.skipped, "sent": tally.sent,
             "ignored": tally.ignored, "unlistable": tally.unlistable}
        )  # fmt: skip
        return
    print_unlistable(console, tally)
    ignored = f"; {tally.ignored:,} files passed over" if tally.ignored else ""
    console.print(
        f"scan {tally.scan_id}: {tally.listed:,} images listed, {tally.skipped:,} already scored or listed twice, "
        f"{tally.sent:,} queued{ignored}"
    )


def print_unlistable(console: Console, tally: Tally) -> None:
    """Print the folders and lines that could not be listed."""
    for line in tally.unlistable:
        console.print(f"warning: cannot list {printable(line)}", markup=False, style="yellow")


def print_ledger(console: Console, ledger: Ledger, *, as_json: bool) -> None:
    """Print where the images of a scan are."""
    rate = ledger.scored / ledger.seconds if ledger.seconds else 0.0
    if as_json:
        print_json(asdict(ledger) | {"is_complete": ledger.is_complete, "images_per_second": round(rate, 1)})
        return
    table = Table(f"scan {ledger.scan_id} ({ledger.scan_status})", "images", box=None, pad_edge=False)
    rows = {
        "listed": ledger.listed, "skipped": ledger.skipped, "ok": ledger.ok, **ledger.failed, "queued": ledger.queued,
        "running": ledger.running, "in failed jobs": ledger.undelivered, "cancelled": ledger.cancelled,
    }  # fmt: skip
    for name, number in rows.items():
        if number or name in ("listed", "ok"):
            table.add_row(name, f"{number:,}")
    console.print(table)
    if ledger.pending and rate:
        console.print(f"{rate:,.0f} images/s, about {ledger.pending / rate:,.0f} s left")
    for reason, number in ledger.errors.items():
        console.print(f"{number} jobs failed: {printable(reason)}", markup=False)
