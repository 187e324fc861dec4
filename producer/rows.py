"""Rows of a list of images: plain lines, CSV, JSON lines or Parquet; streamed, so that memory stays flat."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from core.errors import SourceError, StorageError
from core.jobs import MAX_SIZE

#: Columns that may name the images, the likeliest first.
NAME_COLUMNS = ("uri", "url", "path", "file", "image", "filename")
_OTHER_COLUMNS = (("fingerprint",), ("etag",), ("size", "size_bytes"))
#: Longer lines are passed over. A row may have more than its name, such as a caption.
MAX_LINE_BYTES = 2**20
#: So many of the reasons for which lines are passed over are kept, the others counted.
MOST_FLAWS = 100
_ROWS_IN_BATCH = 1024


class Row(NamedTuple):
    """What a list says of one image.

    Attributes:
        number: of its line, or of its row in a Parquet file, from 1.
        name: as written; what is not UTF-8 is escaped as `os.fsdecode` does.
        fingerprint: of its content, as the list has it, or of its ETag and size as listing a bucket would give it;
            empty if the list does not say.
        size_bytes: 0 if the list does not say.
    """

    number: int
    name: str
    fingerprint: str = ""
    size_bytes: int = 0


class Flaws:
    """Lines of a list that name no image, each with the reason.

    Attributes:
        count: how many there are.
    """

    def __init__(self, source: str) -> None:
        self.count = 0
        self._source = source
        self._reasons: list[str] = []

    def add(self, number: int | str, reason: str) -> None:
        """Enter a line, or several, by their numbers."""
        self.count += 1
        if len(self._reasons) < MOST_FLAWS:
            self._reasons.append(f"{self._source} line {number}: {reason}")

    @property
    def reasons(self) -> list[str]:
        """The first ones, and how many more there are."""
        more = self.count - len(self._reasons)
        return [*self._reasons, f"{self._source}: {more:,} more of its lines"] if more else self._reasons


def read_rows(file: BinaryIO, kind: str, column: str | None, flaws: Flaws) -> Iterator[Row]:
    """Yield the rows of a list, as they come.

    Args:
        file: from its beginning.
        kind: its suffix, ``.txt``, ``.csv``, ``.jsonl``, each with ``.gz`` or without, or ``.parquet``; ``-`` means
            JSON lines if the first one is a JSON object or string, and otherwise plain lines.
        column: that names the images; None means the first of ``NAME_COLUMNS`` that is there.
        flaws: lines that cannot be read are added to it.

    Raises:
        SourceError: there is no such column.
        StorageError: it cannot be read any further.
        UsageError: pyarrow is not installed.
    """
    try:
        if kind == ".parquet":
            yield from _parquet_rows(file, column, flaws)
            return
        lines = Lines(gzip.GzipFile(fileobj=file) if kind.endswith(".gz") else file, flaws)  # type: ignore[arg-type]
        kind = kind.removesuffix(".gz")
        if kind == ".csv":
            yield from _csv_rows(lines, column, flaws)
        elif kind == ".jsonl" or (kind == "-" and isinstance(_parsed(lines.head()), dict | str)):
            yield from _json_rows(lines, column, flaws)
        else:
            yield from _plain_rows(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(str(error)) from error


class Lines:
    """The lines of a file with their ends; those that are too long are passed over.

    Attributes:
        number: of the line that was last returned, from 1.
    """

    def __init__(self, file: BinaryIO, flaws: Flaws) -> None:
        # Of an unbuffered file every byte would be a call.
        self._file = io.BufferedReader(file, MAX_LINE_BYTES) if isinstance(file, io.RawIOBase) else file
        self._flaws = flaws
        self._head: bytes | None = None
        self.number = 0

    def head(self) -> bytes:
        """Return the first line that is not blank, before the iteration; empty if there is none."""
        self._head = next((line for line in self if line.strip()), b"")
        return self._head

    def __iter__(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        while line := self._file.readline(MAX_LINE_BYTES):
            self.number += 1
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = self._file.readline(MAX_LINE_BYTES)
                self._flaws.add(self.number, f"longer than {MAX_LINE_BYTES:,} bytes")
                continue
            yield line.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else line


def _plain_rows(lines: Lines) -> Iterator[Row]:
    for line in lines:
        name = line.rstrip(b"\r\n")
        if name.strip() and not name.startswith(b"#"):
            yield Row(lines.number, name.decode(errors="surrogateescape"))


def _csv_rows(lines: Lines, column: str | None, flaws: Flaws) -> Iterator[Row]:
    # Strict: a quote that is never closed shall not swallow the rest of the file in silence.
    reader = csv.reader((line.decode(errors="surrogateescape") for line in lines), strict=True)
    columns: list[int | None] | None = None
    while True:
        first = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if columns is None:
                raise SourceError(f"its first line is not CSV: {error}") from error
            flaws.add(first if lines.number <= first else f"{first} to {lines.number}", f"not CSV: {error}")
            continue
        if not fields:
            continue
        if columns is None:
            header = [field.strip() for field in fields]
            columns = [None if name is None else header.index(name) for name in _choose(header, column)]
            continue
        cells = [fields[index] if index is not None and index < len(fields) else None for index in columns]
        row = _row(lines.number, cells)
        if row is None:
            flaws.add(lines.number, "it has fewer columns than the first line")
        else:
            yield row


def _json_rows(lines: Lines, column: str | None, flaws: Flaws) -> Iterator[Row]:
    columns: list[str | None] | None = None
    for line in lines:
        if not line.strip():
            continue
        value = _parsed(line)
        if isinstance(value, str):
            yield Row(lines.number, value)
        elif not isinstance(value, dict):
            flaws.add(lines.number, "neither a JSON object nor a JSON string")
        else:
            if columns is None:
                columns = _choose(list(value), column)
            row = _row(lines.number, [None if key is None else value.get(key) for key in columns])
            if row is None:
                flaws.add(lines.number, f"{columns[0]!r:.80} holds no text")
            else:
                yield row


def _parquet_rows(file: BinaryIO, column: str | None, flaws: Flaws) -> Iterator[Row]:
    from core.tables import import_parquet

    pyarrow, ParquetFile = import_parquet()  # noqa: N806 - a class
    try:
        # Without a buffer, and with a look ahead, whole columns of a row group would be read at once.
        table = ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        columns = _choose(table.schema_arrow.names, column)
        number = 0
        for batch in table.iter_batches(_ROWS_IN_BATCH, columns=list({*filter(None, columns)})):
            nothing = [None] * len(batch)
            values = [nothing if name is None else batch.column(name).to_pylist() for name in columns]
            for cells in zip(*values, strict=True):
                number += 1
                row = _row(number, cells)
                if row is None:
                    flaws.add(number, f"{columns[0]!r:.80} holds no text")
                else:
                    yield row
    except (pyarrow.ArrowException, KeyError, ValueError) as error:
        raise StorageError(f"no Parquet that can be read: {error!s:.200}") from error


def _row(number: int, cells: Sequence[object]) -> Row | None:
    """Return a row of what a list has in its columns, see ``_choose``; None if it has no name."""
    name, fingerprint, etag, size = cells
    if isinstance(name, bytes):  # in Parquet: some programs write text without saying that it is
        name = name.decode(errors="surrogateescape")
    if not isinstance(name, str):
        return None
    known = _size(size)
    found = str(fingerprint or "")
    if not found and etag:
        tag = str(etag).removeprefix("W/").strip('"')
        found = tag if known is None else f"{tag}-{known}"
    return Row(number, name, found, known or 0)


def _parsed(line: bytes) -> Any:
    """Return what a line holds as JSON; None if it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _size(value: object) -> int | None:
    """Return a size in bytes; None for whatever is none."""
    try:
        size = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 <= size <= MAX_SIZE else None


def _choose(names: Sequence[str], column: str | None) -> list[str | None]:
    """Return which columns hold the name, the fingerprint, the ETag and the size; None for those that are not there.

    Raises:
        SourceError: no column names the images.
    """
    by_lower = {name.lower(): name for name in reversed(names)}  # the first of equals counts

    def first_of(wanted: Iterable[str]) -> str | None:
        return next((by_lower[name] for name in wanted if name in by_lower), None)

    chosen = column if column in names else first_of(NAME_COLUMNS if column is None else [column.lower()])
    if chosen is None:
        missing = f"no column {column}" if column is not None else f"none of the columns {', '.join(NAME_COLUMNS)}"
        raise SourceError(f"{missing}; --column can choose among {', '.join(names):.300}")
    return [chosen, *map(first_of, _OTHER_COLUMNS)]
