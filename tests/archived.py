"""Archives that are made for a test."""

import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from core.archives import ArchiveListing
from core.errors import ImageError
from core.images import ImageRef
from core.selection import Selection
from core.storage import Reader
from core.uris import ANYWHERE, split_member
from core.verdicts import Status

MAX_BYTES = 2**20
EVERYTHING = Selection(include=["*"])


def write_tar(path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:  # noqa: A002
    """Write a tar of these files."""
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            add_file(tar, name, content)
    return path


def add_file(tar: tarfile.TarFile, name: str, content: bytes, **fields: Any) -> None:
    """Add a file to a tar, with these fields in its header."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, BytesIO(content))


def write_zip(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip of these files."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_table(path: Path, contents: Sequence[bytes | None], *, group: int = 1000, is_struct: bool = True) -> Path:
    """Write a table of these images, as data sets of Hugging Face have it, or as a column of bytes."""
    import pyarrow
    from pyarrow import parquet

    if is_struct:
        kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        values = [None if content is None else {"bytes": content, "path": "a.jpg"} for content in contents]
    else:
        kind, values = pyarrow.binary(), list(contents)
    columns = {"label": pyarrow.array(range(len(values))), "image": pyarrow.array(values, kind)}
    with path.open("wb") as file:  # whose name may be of no UTF-8
        parquet.write_table(pyarrow.table(columns), file, row_group_size=group)
    return path


def in_each_kind(folder: Path, contents: Sequence[bytes]) -> dict[str, Path]:
    """Write a tar, a zip and a table with the same images, under numbers as names."""
    named = {f"{number:04}.jpg": content for number, content in enumerate(contents)}
    return {
        "tar": write_tar(folder / "a.tar", named),
        "zip": write_zip(folder / "a.zip", named),
        "parquet": write_table(folder / "a.parquet", contents),
    }


def listed(path: Path | str, selection: Selection = EVERYTHING) -> list[ImageRef]:
    """Return the members of an archive that can be listed to its end."""
    listing = ArchiveListing(str(path), selection)
    refs = list(listing)
    assert listing.unlistable == []
    return refs


def read_all(refs: Sequence[ImageRef], max_bytes: int = MAX_BYTES) -> dict[str, bytes | Status]:
    """Return the content or the failure of each member, by its name."""
    with Reader(roots=(ANYWHERE,), max_bytes=max_bytes) as reader:
        return {str(split_member(ref.uri)[1]): read_one(reader.read, ref) for ref in refs}


def read_one(read: Callable[[ImageRef], bytes], ref: ImageRef) -> bytes | Status:
    """Return the content of an image, or the status of its failure, which must have a reason of one line."""
    try:
        return read(ref)
    except ImageError as error:
        failure = error
    assert failure.reason
    assert failure.reason.isprintable()
    return failure.status
