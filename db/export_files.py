"""Write verdicts as Parquet, CSV or JSON lines: one file, or a folder of parts. What is there is always complete."""

import csv
import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Self, TextIO, get_args

from sqlalchemy.types import BigInteger, Boolean, DateTime, Double, Integer

from core.errors import UsageError
from db.export import COLUMNS, NAMES, Row, Selection, Tally

Format = Literal["parquet", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Rows that become Arrow's columns at a time, and rows of a Parquet row group.
BATCH, GROUP = 10_000, 100_000
#: What is appended to the name of a file for that of the file beside it, which tells where the rows come from.
SIDECAR = ".provenance.json"
_PART = re.compile(r"part-\d{5,}\.(parquet|csv|jsonl)(\.gz)?(\.provenance\.json)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """The format of a file, and whether it is compressed as a whole."""

    format: Format
    is_gzip: bool = False

    @classmethod
    def of(cls, name: str, wanted: Format | None) -> Self:
        """Return the kind of a file: its format is what is wanted, or what its name ends in.

        Raises:
            UsageError: neither tells, or compressing was asked for what is compressed already.
        """
        is_gzip = name.endswith(".gz")
        suffix = Path(name.removesuffix(".gz")).suffix.removeprefix(".")
        found = wanted or next((one for one in FORMATS if one == suffix), None)
        if found is None:
            raise UsageError(f"{name} does not end in .parquet, .csv, .jsonl, .csv.gz or .jsonl.gz: give a --format")
        if found == "parquet" and is_gzip:
            raise UsageError(f"{name}: a Parquet file is compressed inside; leave .gz out")
        return cls(found, is_gzip)

    @property
    def suffix(self) -> str:
        """What the names of its files end in."""
        return f".{self.format}{'.gz' * self.is_gzip}"


def write_file(selection: Selection, rows: Iterator[Row], target: Path, kind: Kind, *, overwrite: bool) -> int:
    """Write rows to one file, and what tells where they come from into it or beside it.

    Args:
        selection: that the rows are of.
        rows: to write.
        target: the file.
        kind: of the file.
        overwrite: whether to replace what is there.

    Returns:
        The number of rows.

    Raises:
        UsageError: the file exists or cannot be written, or pyarrow is not installed.
    """
    has_sidecar = kind.format != "parquet"
    for path in (target, *([_sidecar(target)] if has_sidecar else [])):
        check_file(path, overwrite=overwrite)
    with _scratch(target, kind) as scratch:
        tally = _write(selection, rows, scratch / target.name, kind)
        if has_sidecar:
            _sidecar(scratch / target.name).replace(_sidecar(target))
        (scratch / target.name).replace(target)
    return tally.rows


def write_parts(
    selection: Selection, rows: Iterator[Row], target: Path, kind: Kind, *, size: int, overwrite: bool
) -> tuple[int, int]:
    """Write rows to a folder of numbered files, each as ``write_file`` does.

    Args:
        selection: that the rows are of.
        rows: to write.
        target: the folder.
        kind: of the files.
        size: rows in each file but the last.
        overwrite: whether to replace a folder that was written so.

    Returns:
        The numbers of files and of rows.

    Raises:
        UsageError: the folder exists or cannot be written, or pyarrow is not installed.
    """
    _check_folder(target, overwrite=overwrite)
    with _scratch(target, kind) as scratch:
        new = scratch / "new"
        new.mkdir()
        tallies = [
            _write(selection, some, new / f"part-{number:05}{kind.suffix}", kind)
            for number, some in enumerate(_split(rows, size))
        ]
        if overwrite:
            with suppress(FileNotFoundError):  # a full folder cannot be replaced in one step
                target.rename(scratch / "old")
        new.rename(target)
    return len(tallies), sum(tally.rows for tally in tallies)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Check that a file may be written, before the work is begun.

    Raises:
        UsageError: it exists and is not to be replaced, or is no file, or there is no such folder.
    """
    if not path.parent.is_dir():
        raise UsageError(f"folder {path.parent} does not exist: create it")
    if path.exists() and not path.is_file():  # neither a folder nor a device is ever deleted
        raise UsageError(f"{path} is not a file: choose another name")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another name, or --overwrite it")


def write_text(rows: Iterator[Row], file: TextIO, kind: Kind) -> None:
    """Write rows as CSV (RFC 4180) or as one JSON object for each line, to a file that leaves line ends as they are."""
    if kind.format == "csv":
        writer = csv.writer(file)
        writer.writerow(NAMES)
        writer.writerows(map(_as_text, row) for row in rows)
    else:
        objects = (dict(zip(NAMES, row, strict=True)) for row in rows)
        file.writelines(json.dumps(found, default=datetime.isoformat) + "\n" for found in objects)


def write_parquet(rows: Iterator[Row], path: Path, provenance: Callable[[], dict[str, Any]]) -> None:
    """Write rows as Parquet, a batch at a time.

    Args:
        rows: to write.
        path: of the file.
        provenance: asked once all rows are written; becomes the schema's metadata ``facesieve``.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, _arrow_type(column.type)) for name, column in zip(NAMES, COLUMNS, strict=True)])
    # Without Arrow's copy of the schema, which would hide the metadata that is added at the end from its own readers.
    with parquet.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        batches = (
            pa.RecordBatch.from_arrays(
                [pa.array(values, kind) for values, kind in zip(zip(*some, strict=True), schema.types, strict=True)],
                schema=schema,
            )
            for some in _chunks(rows, BATCH)
        )
        for group in _chunks(batches, GROUP // BATCH):
            writer.write_table(pa.Table.from_batches(group))
        writer.add_key_value_metadata({"facesieve": json.dumps(provenance())})


@contextmanager
def _scratch(target: Path, kind: Kind) -> Iterator[Path]:
    """Make a folder beside the target, which goes with whatever is left in it."""
    if kind.format == "parquet":
        try:
            import pyarrow  # noqa: F401 - looked for before the work is begun
        except ModuleNotFoundError as error:
            raise UsageError("pyarrow is not installed: pip install 'facesieve[answers]'") from error
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
            yield Path(scratch)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error


def _write(selection: Selection, rows: Iterator[Row], path: Path, kind: Kind) -> Tally:
    tally = Tally()
    watched = tally.watch(rows)
    if kind.format == "parquet":
        write_parquet(watched, path, lambda: selection.provenance(tally))
        return tally
    with _open_text(path, kind) as file:
        write_text(watched, file, kind)
    _sidecar(path).write_text(json.dumps(selection.provenance(tally), indent=2) + "\n", encoding="utf-8")
    return tally


def _open_text(path: Path, kind: Kind) -> TextIO:
    if kind.is_gzip:
        return gzip.open(path, "wt", compresslevel=6, encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


def _arrow_type(kind: Any) -> Any:
    import pyarrow as pa

    # In this order: a BigInteger is an Integer, too.
    types = ((Boolean, pa.bool_()), (BigInteger, pa.int64()), (Integer, pa.int32()), (Double, pa.float64()))
    if isinstance(getattr(kind, "impl_instance", kind), DateTime):
        return pa.timestamp("us", tz="UTC")
    return next((arrow for sql, arrow in types if isinstance(kind, sql)), pa.string())


def _split(rows: Iterator[Row], size: int) -> Iterator[Iterator[Row]]:
    """Cut rows into runs of a size, of which each must be read to its end; there is one if there are no rows."""
    yield islice(rows, size)
    for row in rows:
        yield chain((row,), islice(rows, size - 1))


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while some := list(islice(items, size)):
        yield some


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else value


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)


def _check_folder(path: Path, *, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"folder {path.parent} does not exist: create it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: choose another name, or --overwrite it")
    # Somebody's own files are never deleted.
    if path.exists() and not (path.is_dir() and all(_PART.fullmatch(entry.name) for entry in path.iterdir())):
        raise UsageError(f"{path} is not a folder of parts alone: choose another name")
