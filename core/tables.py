"""Images in the rows of a Parquet file."""

import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from core.errors import ImageError, StorageError, UsageError, too_large
from core.members import Archive, Member
from core.verdicts import Status

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

#: Rows that were passed are kept, so many and so many bytes of them: threads do not come in order.
_KEPT_ROWS = 64
_KEPT_BYTES = 64 * 2**20
#: Of a file at a time, if its pages are smaller.
_BUFFER = 2**20
#: What columns of images are called.
_IMAGES = frozenset({"image", "img", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "content"})
#: Columns of bytes that are no images: some programs write text without saying that it is.
_TEXTS = frozenset({"uri", "url", "path", "file", "filename", "file_name", "key", "caption", "text"})


def import_parquet() -> tuple[Any, Any]:
    """Return pyarrow and its ``ParquetFile``, loaded late because they take a while.

    Raises:
        UsageError: they are not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UsageError("pyarrow is not installed: pip install 'facesieve[cloud]'") from None
    return pyarrow, ParquetFile


class TableArchive(Archive):
    """A Parquet file with the bytes of one image in each row; its members are the numbers of the rows, from 0."""

    has_rows: ClassVar[bool] = True

    def __init__(self, file: BinaryIO) -> None:
        """Read what the file says of itself.

        Raises:
            ImageError: it is not Parquet, or has no column of images.
            StorageError: reading failed for a reason that may pass.
            UsageError: pyarrow is not installed.
        """
        super().__init__(file)
        pyarrow, ParquetFile = import_parquet()  # noqa: N806 - a class
        self._faults = (pyarrow.ArrowException, OSError, ValueError)
        try:
            # Neither a group of rows nor a column of it as a whole: it may be larger than memory.
            self._table = ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            schema, groups = self._table.schema_arrow, self._table.metadata
        except self._faults as error:
            raise _translated(error) from error
        column = image_column(schema)
        if column is None:
            raise ImageError(Status.UNSUPPORTED, "no column of it holds images: bytes, or a struct with `bytes`")
        self._column = f"{column}.bytes" if pyarrow.types.is_struct(schema.field(column).type) else column
        counts = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
        self._starts = list(accumulate(counts, initial=0))  # of the groups, and in the end the number of rows
        if min(counts, default=0) < 0 or self._starts[-1] > self._size:
            raise ImageError(Status.UNREADABLE, f"it declares {self._starts[-1]} rows, and has {self._size} bytes")
        self._passed = OrderedDict[int, bytes | None]()
        self._passed_bytes = 0
        self._rows: Iterator[bytes | None] = iter(())
        self._next = self._starts[-1]  # the row that comes next from there

    def members(self) -> Iterator[Member | None]:
        """See ``Archive``. No row is read for it."""
        return (Member(str(row)) for row in range(self._starts[-1]))

    def read(self, member: str, *, offset: int | None, max_bytes: int) -> bytes:  # noqa: ARG002 - rows have none
        """See ``Archive``."""
        row = int(member) if re.fullmatch("0|[1-9][0-9]{0,17}", member) else self._starts[-1]
        if row >= self._starts[-1]:
            raise ImageError(Status.NOT_FOUND, "the archive has no such row")
        with self._lock:
            if not self._closing.alive:
                raise StorageError("the archive was closed before its row was read")
            content = self._passed[row] if row in self._passed else self._read_row(row)
        if content is None:
            raise ImageError(Status.UNREADABLE, "row holds no image")
        if len(content) > max_bytes:
            raise too_large(len(content), max_bytes)
        return content

    def _read_row(self, row: int) -> bytes | None:
        """Read on to a row, or from the beginning of its group. The lock is held."""
        group = bisect_right(self._starts, row) - 1
        at, self._next = self._next, self._starts[-1]  # so that the next read begins anew if this one fails
        if not self._starts[group] <= at <= row:
            self._rows, at = (
                _read_groups(self._table, range(group, len(self._starts) - 1), self._column),
                self._starts[group],
            )
        content = None
        try:
            for passed in range(at, row + 1):
                content = next(self._rows)
                self._keep(passed, content)
        except StopIteration:
            raise ImageError(Status.UNREADABLE, "the table ends before this row") from None
        except self._faults as error:
            raise _translated(error) from error
        self._next = row + 1
        return content

    def _keep(self, row: int, content: bytes | None) -> None:
        self._passed_bytes += len(content or b"") - len(self._passed.pop(row, None) or b"")
        self._passed[row] = content
        while len(self._passed) > _KEPT_ROWS or (self._passed_bytes > _KEPT_BYTES and len(self._passed) > 1):
            _, dropped = self._passed.popitem(last=False)
            self._passed_bytes -= len(dropped or b"")


def _read_groups(table: "ParquetFile", groups: Iterable[int], column: str) -> Iterator[bytes | None]:
    for group in groups:
        # One row at a time: in a dictionary, many can share one large image.
        for batch in table.iter_batches(1, [group], [column], use_threads=False):
            value = batch.column(0)[0].as_py()
            yield value["bytes"] if isinstance(value, dict) else value


def image_column(schema: "pyarrow.Schema") -> str | None:
    """Return the column of a table that holds images; None if none does, and it may be a list of URIs.

    That is the first one with structs of ``bytes`` and more, as data sets of Hugging Face have it, else one of bytes
    with a name that says so, else the first one of bytes.
    """
    import pyarrow

    def is_bytes(kind: "pyarrow.DataType") -> bool:
        return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

    unique = [field for field in schema if schema.names.count(field.name) == 1]
    for field in unique:
        if pyarrow.types.is_struct(field.type) and any(
            part.name == "bytes" and is_bytes(part.type) for part in field.type
        ):
            return str(field.name)
    plain = [str(field.name) for field in unique if is_bytes(field.type) and field.name.lower() not in _TEXTS]
    return next((name for name in plain if name.lower() in _IMAGES), next(iter(plain), None))


def _translated(error: Exception) -> ImageError | StorageError:
    # Arrow says OSError of broken content, too, but with no number.
    if isinstance(error, OSError) and error.errno:
        return StorageError(f"reading failed: {error.strerror}")
    reason = "".join(filter(str.isprintable, str(error).partition("\n")[0]))  # may quote what is broken
    return ImageError(Status.UNREADABLE, f"broken Parquet: {reason:.200}")
