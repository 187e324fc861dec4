"""``db export``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.errors import FacesieveError, UsageError
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
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from db.export import Placed, Row, Selection
    from db.export_files import Format, Kind
    from db.filters import Filter

app = typer.Typer()

_SHOWN = 1000


@app.command()
def export(
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE|FOLDER|-", help="What to write verdicts to.", show_default=False)
    ] = None,
    table_format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        typer.Option("--format", help="Else by the file's suffix; .csv.gz and .jsonl.gz are compressed."),
    ] = None,
    label: LabelOption = None,
    status: StatusOption = None,
    min_score: MinScoreOption = None,
    max_score: MaxScoreOption = None,
    path: PathOption = None,
    scan: ScanOption = None,
    model: ModelOption = None,
    where: Annotated[
        str | None,
        typer.Option(help="SQL condition on the columns of the view labelled_verdict, in the database's own SQL."),
    ] = None,
    partition_rows: Annotated[
        int | None, typer.Option(min=1, help="Write a folder of files of so many rows.", show_default=False)
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option(help="Copy the images themselves, sorted into real/, generated/ and unsure/.")
    ] = None,
    link_to: Annotated[Path | None, typer.Option(help="Likewise, but make symbolic links to them.")] = None,
    reviewed: Annotated[
        Path | None, typer.Option(help="Write the images that were reviewed to this file, for `model train`.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file or folder of parts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write verdicts to a file, or image files to folders by their labels, or reviewed images for a training.

    Files of verdicts tell where they come from: Parquet in its schema's metadata, others in FILE.provenance.json. What
    is there is complete. With --copy-to and --link-to, images that could not be read are named on stderr, and the exit
    code is 1.

    Examples:
        db export verdicts.parquet

        db export generated.csv.gz --label generated --where "width >= 512"

        db export - --format jsonl --scan 3 | jq .uri

        db export parts --format parquet --partition-rows 1000000

        db export --copy-to ./sorted --min-score 0.9

        db export --reviewed manifest.csv
    """
    if sum(goal is not None for goal in (target, copy_to, link_to, reviewed)) != 1:
        raise UsageError("give one of: a file to write, --copy-to, --link-to, --reviewed")
    wanted = read_filter(label, status, min_score, max_score, path, scan, model)
    only_tables: dict[str, object] = {"--format": table_format, "--partition-rows": partition_rows}
    if target is not None:
        kind = _kind_of(target, table_format, partition_rows)
        with _select(wanted, where) as selection:
            _write_table(selection, target, kind, partition_rows, overwrite=overwrite, as_json=as_json)
    elif reviewed is not None:
        _refuse("--reviewed", only_tables | {"--where": where, "a filter": wanted != type(wanted)()})
        _write_reviewed(reviewed, overwrite=overwrite, as_json=as_json)
    elif (folder := copy_to or link_to) is not None:
        _refuse("--copy-to and --link-to", only_tables | {"--overwrite": overwrite})
        with _select(wanted, where) as selection:
            _sort_images(selection, folder, is_copy=copy_to is not None, as_json=as_json)


def _kind_of(target: Path, table_format: "Format | None", partition_rows: int | None) -> "Kind":
    from db.export_files import Kind

    if str(target) == "-" and table_format not in ("csv", "jsonl"):
        raise UsageError("-, the standard output, needs --format csv or --format jsonl")
    if str(target) == "-" and partition_rows is not None:
        raise UsageError("--partition-rows needs a folder: - is the standard output")
    return Kind.of(target.name, table_format)


def _refuse(what: str, options: dict[str, object]) -> None:
    """Refuse what was given although it would do nothing."""
    for option, value in options.items():
        if value:
            raise UsageError(f"{option} means nothing with {what}: leave it out")


def _select(wanted: "Filter", where: str | None) -> "AbstractContextManager[Selection]":
    from db.engine import open_engine
    from db.export import open_selection

    return open_selection(open_engine(read_settings()), wanted, where)


def _write_table(
    selection: "Selection",
    target: Path,
    kind: "Kind",
    partition_rows: int | None,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    from db.export_files import write_file, write_parts, write_text

    rows = _shown(selection.rows())
    if str(target) == "-":
        try:
            with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as file:
                write_text(rows, file, kind)
        except OSError as error:
            raise UsageError(f"the standard output cannot be written: {error.strerror}") from error
        return
    if partition_rows is None:
        files, written = 1, write_file(selection, rows, target, kind, overwrite=overwrite)
    else:
        files, written = write_parts(selection, rows, target, kind, size=partition_rows, overwrite=overwrite)
    if as_json:
        print_json({"path": str(target), "format": kind.format, "files": files, "rows": written})
    else:
        parts = "" if partition_rows is None else f" in {files:,} files"
        console().print(printable(f"{target}: {written:,} verdicts{parts}"), markup=False)


def _shown(rows: "Iterator[Row]") -> "Iterator[Row]":
    from core.progress import ImageProgress

    with ImageProgress("exporting") as progress:
        for number, row in enumerate(rows, start=1):
            yield row
            if number % _SHOWN == 0:
                progress(number)


def _sort_images(selection: "Selection", target: Path, *, is_copy: bool, as_json: bool) -> None:
    from core.progress import ImageProgress
    from db.export_images import copy_image, link_image, sort_images

    prepare = copy_image if is_copy else link_image
    with ImageProgress("sorting") as progress:
        placed = sort_images(selection, target, read_settings(), prepare, report=_report, progress=progress)
    _conclude(target, placed, as_json=as_json)


def _write_reviewed(target: Path, *, overwrite: bool, as_json: bool) -> None:
    from db.engine import open_engine
    from db.export_reviewed import write_reviewed

    placed = write_reviewed(open_engine(read_settings()), target, overwrite=overwrite, report=_report)
    _conclude(target, placed, as_json=as_json)


def _report(uri: str, reason: str) -> None:
    notice(f"{uri}: {reason}")


def _conclude(target: Path, placed: "Placed", *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(target), "labels": placed.labels, "failed": placed.failed})
    else:
        counts = ", ".join(f"{number:,} {label}" for label, number in placed.labels.most_common()) or "no images"
        console().print(printable(f"{target}: {counts}; {placed.failed:,} failed"), markup=False)
    if placed.failed:
        raise FacesieveError(
            f"{placed.failed:,} of {placed.total:,} images are missing from {target}: see the lines above"
        )
