"""``db show`` and ``sql``: whatever the database knows."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any

import typer

from core.cli import JsonOption, cell, console, notice, print_json, printable, read_settings
from core.errors import UsageError

app = typer.Typer()

MOST_ROWS = 1000


@app.command()
def show(
    image: Annotated[
        str,
        typer.Argument(help="Path, URI, or at least 8 hex digits that its id begins with.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of an image: each model's verdict, where that came from, its faces, and reviews.

    Others with the same content are found by their score, so those that were scored elsewhere may be left out.

    Examples:
        db show faces/a.jpg

        db show 3f2a9c01 --json
    """
    from db.engine import open_engine
    from db.images import describe_image

    found = describe_image(open_engine(read_settings()), image)
    if as_json:
        print_json(found)
        return
    pairs = [("image", found["uri"]), ("id", found["id"]), ("size", f"{found['size_bytes']:,} bytes")]
    if found["width"] is not None:
        pairs.append(("pixels", f"{found['width']} x {found['height']}"))
    if found["phash"] is not None:
        pairs.append(("picture hash", found["phash"]))
    pairs += [("same content", uri) for uri in found["same_content"]]
    pairs += [("review", _review_line(row)) for row in found["reviews"]]
    _print_pairs(pairs)
    for row in found["verdicts"]:
        console().print()
        _print_pairs(_verdict_pairs(row))


@app.command("sql")
def sql_command(
    query: Annotated[str, typer.Argument(help="One SELECT; - reads it from standard input.", show_default=False)],
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0 means all.")] = MOST_ROWS,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds that the database may think.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """Run a query of your own, which can only read. Bytes are shown in hex.

    The view labelled_verdict has what `db list` shows; the tables are model, scan, job, image, verdict, face, review.

    Examples:
        db sql "SELECT label, count(*) FROM labelled_verdict GROUP BY label"

        db sql - --csv --limit 0 --timeout 60 < query.txt
    """
    from db.engine import open_engine
    from db.sql import run_query

    if as_json and as_csv:
        raise UsageError("--json and --csv do not go together")
    with closing(run_query(open_engine(read_settings()), _read_query(query), timeout=timeout)) as rows:
        names = next(rows)
        some = islice(rows, limit or None)
        if as_json:
            _print_objects(names, some)
        elif as_csv:
            writer = csv.writer(sys.stdout)
            writer.writerow(names)
            writer.writerows([_plain(value) for value in row] for row in some)
        else:
            _print_table(names, some)
        if next(rows, None) is not None:
            notice(f"note: there are more than {limit:,} rows: see --limit")


def _review_line(row: dict[str, Any]) -> str:
    note = f": {row['note']}" if row["note"] else ""
    return f"{row['label']}, by {row['reviewer']} at {_moment(row['reviewed_at'])}{note}"


def _verdict_pairs(row: dict[str, Any]) -> list[tuple[str, str]]:
    score = "-" if row["p_real"] is None else f"{row['p_real']:.6f}"
    by = " ".join(filter(None, (row["worker"], row["engine"], row["precision"])))
    return [
        ("model", f"{row['model']} {row['model_id']}"),
        ("verdict", f"{row['label']}, p_real {score}" if row["label"] else f"{row['status']}: {row['reason']}"),
        ("scored", f"{_moment(row['scored_at'])} in scan {row['scan_id']}, job {row['job_id']}"),
        ("by", by),
        ("fingerprint", row["fingerprint"] or "-"),
        ("digest", row["digest"] or "-"),
        *((f"face {face['number']}", _face_line(face)) for face in row["faces"]),
    ]


def _face_line(face: dict[str, Any]) -> str:
    place = f"{face['width']} x {face['height']} pixels at {face['x']}, {face['y']}"
    return f"p_real {face['p_real']:.6f}, {place}, found with confidence {face['confidence']:.2f}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _print_pairs(pairs: list[tuple[str, str]]) -> None:
    for name, value in pairs:
        console().print(f"{name:14}{printable(value)}", markup=False)


def _read_query(text: str) -> str:
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the query is not valid UTF-8: {error.reason} at byte {error.start}") from error


def _plain(value: Any) -> Any:
    """Return a value as JSON and CSV have it."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Decimal):  # PostgreSQL's sum of integers
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    return value


def _print_objects(names: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    if twice := {name for name in names if list(names).count(name) > 1}:
        raise UsageError(f"several columns are called {', '.join(sorted(twice))}: rename them with AS")
    for row in rows:
        print_json(dict(zip(names, map(_plain, row), strict=True)))


def _print_table(names: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(cell(name))
    for row in rows:
        table.add_row(*(cell("-" if value is None else str(_plain(value))) for value in row))
    console().print(table)
