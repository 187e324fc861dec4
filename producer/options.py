"""Options of the commands that list images: which of them are wanted, and what is done with them."""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from time import time
from typing import Annotated

import typer

from core.errors import UsageError
from core.selection import Selection

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
#: Beyond, a time zone leads out of the calendar.
_LATEST = datetime(9999, 1, 1).timestamp()
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def read_size(text: str) -> int:
    """Return a size in bytes.

    Args:
        text: bytes, or a number with one of k, M, G, T, which are powers of 1,024.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([kmgt]?)", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        raise UsageError(f"{text!r:.80} is no size: give bytes, or a number such as 10k, 5M or 1G")
    return round(float(found[1]) * _UNITS[found[2].lower()])


def read_moment(text: str) -> float:
    """Return a moment in seconds since 1970.

    Args:
        text: a date or time in ISO 8601, local unless it names a zone; or an age, a number with one of s, m, h, d, w.

    Raises:
        UsageError: it is none.
    """
    age = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])", text.strip(), re.ASCII)
    if age is not None:
        return max(time() - float(age[1]) * _AGES[age[2]], 0.0)
    try:
        return min(max(datetime.fromisoformat(text.strip()).timestamp(), 0.0), _LATEST)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{text!r:.80} is no moment: give a date such as 2025-01-31, a time such as 2025-01-31T12:00, "
            "or an age such as 12h or 7d"
        ) from None


def read_share(text: str) -> float:
    """Return a share, above 0 and at most 1.

    Raises:
        UsageError: it is none.
    """
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UsageError(f"{text!r:.80} is no share: give a number above 0 and up to 1, such as 0.01")
    return share


class Faces(StrEnum):
    """What is scored of an image."""

    OFF = "off"  # the whole of it
    DETECT = "detect"  # each face that is found in it


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Folders, files, archives, s3:// gs:// az:// https://, or lists of these (.txt .csv .jsonl .parquet; "
        "- reads one from standard input).",
        metavar="SOURCE...",
    ),
]
IncludeOption = Annotated[list[str] | None, typer.Option(help="Glob of files to take, instead of all images.")]
ExcludeOption = Annotated[list[str] | None, typer.Option(help="Glob of files to pass over.")]
ColumnOption = Annotated[str | None, typer.Option(help="Column of a list that names the images.")]
ShardsOption = Annotated[
    bool, typer.Option("--shards", help="Take the images in the archives of folders and buckets, and no others.")
]
MinSizeOption = Annotated[
    int | None, typer.Option(parser=read_size, metavar="SIZE", help="Pass over smaller files: bytes, or 10k, 5M, 1G.")
]
MaxSizeOption = Annotated[int | None, typer.Option(parser=read_size, metavar="SIZE", help="Pass over larger files.")]
NewerOption = Annotated[
    float | None,
    typer.Option(parser=read_moment, metavar="WHEN", help="Pass over files last modified before: a date, or 7d, 12h."),
]
OlderOption = Annotated[
    float | None, typer.Option(parser=read_moment, metavar="WHEN", help="Pass over files modified since.")
]
SampleOption = Annotated[
    float | None,
    typer.Option(parser=read_share, metavar="SHARE", help="Take this share, such as 0.01: the same images each time."),
]
JobSizeOption = Annotated[int | None, typer.Option(min=1, max=10_000, help="Images in a message.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="List at most so many images.")]
ShuffleOption = Annotated[
    bool, typer.Option("--shuffle-jobs", help="Queue jobs in random order, so that early results are typical.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Score again what is scored already.")]
RetryFailuresOption = Annotated[bool, typer.Option("--retry-failures", help="Score again the images that failed.")]
FacesOption = Annotated[
    Faces, typer.Option(help="detect: find the faces in each image and score each; the most generated one counts.")
]
ModelOption = Annotated[str | None, typer.Option(help="Name or folder of the model artifact.")]


def read_selection(
    *,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    newer_than: float | None = None,
    older_than: float | None = None,
    sample: float | None = None,
) -> Selection:
    """Return the selection that the options above ask for.

    Raises:
        UsageError: nothing could pass.
    """
    if max_size is not None and (min_size or 0) > max_size:
        raise UsageError(f"--min-size {min_size} is more than --max-size {max_size}: swap them")
    if newer_than is not None and older_than is not None and newer_than >= older_than:
        since, before = (f"{datetime.fromtimestamp(when):%Y-%m-%d %H:%M}" for when in (newer_than, older_than))
        raise UsageError(f"--newer-than {since} is not before --older-than {before}: swap them")
    return Selection(
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        min_bytes=min_size or 0,
        max_bytes=max_size,
        newer_than=newer_than,
        older_than=older_than,
        sample=1.0 if sample is None else sample,
    )
