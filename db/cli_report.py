"""``db report``: a scan as one page."""

from pathlib import Path
from typing import Annotated

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.errors import UsageError

#: Beyond so many images the database takes its time.
MANY = 200_000

app = typer.Typer()


@app.command()
def report(
    scan: Annotated[
        int | None, typer.Argument(help="Number of the scan; the latest if left out.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Of the page.", show_default=False)] = "",
    gallery: Annotated[
        int, typer.Option(min=0, max=1000, help="Pictures of each kind: most generated, most uncertain, most real.")
    ] = 100,
    explain: Annotated[
        int,
        typer.Option(
            min=0, max=50, help="Draw where the evidence lies in so many of the most generated and most uncertain ones."
        ),
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a scan as one HTML page: counts, scores, folders, failures and pictures. It needs no network.

    The page holds small copies of the pictures and full paths: mind whom you give it to.

    Examples:
        db report

        db report 3 --out faces.html --title "Faces of May" --gallery 200

        db report --explain 10
    """
    try:
        from db.report import make_page, write_page
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'facesieve[answers]'") from error
    from core.progress import ImageProgress
    from db.engine import open_engine
    from db.ledger import latest_scan, read_ledger

    if not out.absolute().parent.is_dir():
        raise UsageError(f"folder {out.absolute().parent} of --out does not exist: create it")
    settings = read_settings()
    engine = open_engine(settings)
    scan_id = latest_scan(engine) if scan is None else scan
    if (images := read_ledger(engine, scan_id).scored) > MANY:
        notice(f"note: counting {images:,} images by folder; a million takes up to a minute")
    with ImageProgress("making pictures") as show:
        page = make_page(engine, scan_id, settings, show, title=title, gallery=gallery, explained=explain)
    size = write_page(page, out)
    for problem in page.problems:
        notice(f"note: not explained: {problem}")
    if as_json:
        print_json({"scan": scan_id, "out": str(out), "bytes": size, "pictures": page.pictures})
    else:
        console().print(
            printable(f"wrote {out}: scan {scan_id}, {page.pictures:,} pictures, {size / 1e6:.1f} MB"), markup=False
        )
