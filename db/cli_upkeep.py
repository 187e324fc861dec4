"""``db verify`` and ``prune``: books that balance, and rows that may go."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import JsonOption, console, notice, print_json, read_settings
from core.errors import FacesieveError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.doomed import Gathered, Wanted

app = typer.Typer()


@app.command()
def verify(
    scan: Annotated[
        int | None, typer.Argument(help="Number of the scan; the latest if left out.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Verify every scan, a line each.")] = False,
    complete: Annotated[bool, typer.Option("--complete", help="Also fail if anything is still to do.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove that every listed image is accounted for: skipped, scored, failed by name, or pending.

    Exits with 1 if the books do not balance or a verdict that they count is missing, unless `db prune` took it.

    Examples:
        db verify

        db verify 3 --complete

        db verify --all --json
    """
    from db.engine import open_engine
    from db.ledger import every_scan, latest_scan

    if every and scan is not None:
        raise UsageError(f"--all verifies every scan: leave out {scan}")
    engine = open_engine(read_settings())
    if not every:
        scan_id = latest_scan(engine) if scan is None else scan
        books, problems = _check(engine, scan_id, complete=complete)
        _print_books(books, problems, as_json=as_json)
        if problems:
            raise FacesieveError(f"scan {scan_id} does not pass: {len(problems)} problem{'s' * (len(problems) > 1)}")
        return
    scans = every_scan(engine)
    failed = 0
    for scan_id in scans:
        books, problems = _check(engine, scan_id, complete=complete)
        failed += bool(problems)
        _print_books(books, problems, as_json=as_json, is_brief=True)
    if failed:
        raise FacesieveError(f"{failed} of {len(scans)} scans do not pass: see `db verify SCAN`")


@app.command()
def prune(
    scan: Annotated[
        int | None, typer.Option(help="Forget a scan: its jobs, and the verdicts that it was the last to give.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Verdicts of this model: a name, or how its id begins.")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Verdicts given before this day, in local time."),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Images that could not be scored.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Images whose file is gone from this machine.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete verdicts for good. The next scan that finds their images scores them again.

    Several options mean verdicts that all of them are true of; --scan stands alone. An image goes with its last
    verdict, unless somebody has reviewed it. Scans stay in the books, which go on to balance: they say how many of
    their verdicts were pruned. Only --scan forgets a scan as a whole; its number is not used again. Workers can go on.

    Examples:
        db prune --scan 3

        db prune --missing --yes

        db prune --model card --failed --before 2025-01-31
    """
    from core.progress import ImageProgress
    from db.doomed import Wanted
    from db.engine import open_engine
    from db.models import pick_model
    from db.prune import open_pruning

    others = {"--model": model, "--before": before, "--failed": failed or None, "--missing": missing or None}
    given = [name for name, value in others.items() if value is not None]
    if (scan is None) == (not given):
        raise UsageError(f"--scan and {given[0]} do not go together" if given else "say what to prune: see --help")
    engine = open_engine(read_settings())
    model_id = pick_model(engine, model).id if model is not None else None
    wanted = Wanted(scan, model_id, before.astimezone() if before else None, failed, missing)
    with ImageProgress("looking for files") as report, open_pruning(engine, wanted, report) as pruning:
        gathered = pruning.gathered
        _announce(wanted, gathered)
        if not gathered.verdicts and scan is None:
            notice("note: nothing to prune")
        elif not yes:
            _confirm()
        with ImageProgress("booking") as booked:
            pruning.book(booked)
        with ImageProgress("pruning") as deleted:
            pruned = pruning.delete(deleted)
    if as_json:
        print_json({"verdicts": pruned.verdicts, "images": pruned.images, "scan": scan})
    else:
        console().print(f"pruned {pruned.verdicts:,} verdicts, and {pruned.images:,} images that nothing else is about")


def _check(engine: "Engine", scan_id: int, *, complete: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the books of a scan, and what is wrong with them."""
    from db.ledger import read_ledger, verify_scan
    from db.prune import count_pruned

    problems = verify_scan(engine, scan_id)
    ledger = read_ledger(engine, scan_id)
    left = ledger.pending + ledger.undelivered + ledger.unlistable
    if complete and (left or ledger.scan_status != "listed"):
        problems.append(
            f"not complete: listing {ledger.scan_status}, {ledger.pending} pending, "
            f"{ledger.undelivered} in failed jobs, {ledger.unlistable} folders or lines not listed"
        )
    names = ("listed", "skipped", "ok", "failed", "pending", "undelivered", "cancelled")
    books = {name: getattr(ledger, name) for name in names}
    return {"scan": scan_id, **books, "pruned": count_pruned(engine, scan_id)}, problems


def _print_books(books: dict[str, Any], problems: list[str], *, as_json: bool, is_brief: bool = False) -> None:
    scan_id, out = books["scan"], console()
    if as_json:
        print_json({"scan": scan_id, "balances": not problems, "problems": problems, **books})
        return
    failed = ", ".join(f"{number} {status}" for status, number in books["failed"].items()) or "0"
    pruned = f"; {books['pruned']} verdicts of these were pruned" if books["pruned"] else ""
    line = (
        f"scan {scan_id}: {books['listed']} listed = {books['skipped']} skipped + {books['ok']} ok + {failed} failed + "
        f"{books['pending']} pending + {books['undelivered']} in failed jobs + {books['cancelled']} cancelled{pruned}"
    )
    if is_brief:
        state = f"{len(problems)} problem{'s' * (len(problems) > 1)}: {problems[0]}" if problems else "passes"
        out.print(f"{line}; {state}", markup=False)
        return
    out.print(line)
    for problem in problems:
        out.print(problem, markup=False)


def _announce(wanted: "Wanted", gathered: "Gathered") -> None:
    """Say on stderr what is about to go."""
    whole = f", and scan {wanted.scan_id} with its jobs" if wanted.scan_id is not None else ""
    notice(f"note: {gathered.verdicts:,} verdicts of {gathered.images:,} images are to go{whole}")
    if gathered.lost_folder is not None:
        notice(
            f"note: {gathered.lost:,} files are gone with their whole folder, such as {gathered.lost_folder}: "
            "is it a disk that is not mounted now?"
        )


def _confirm() -> None:
    try:
        is_sure = typer.confirm("Delete them?", err=True)
    except typer.Abort:
        raise UsageError("nobody answered, nothing was pruned: give --yes") from None
    if not is_sure:
        raise FacesieveError("nothing was pruned")
