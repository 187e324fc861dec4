"""Sort image files into folders by their labels, as copies or as links."""

import csv
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, select

from core.errors import ImageError, StorageError, UsageError
from core.files import locate_file
from core.settings import Settings
from core.storage import read_image
from core.verdicts import Status
from db import schema
from db.export import Placed, Selection
from db.filters import VIEW
from db.labels import LABELS

_FINGERPRINT = (
    select(schema.verdict.c.fingerprint)
    .where(schema.verdict.c.image_id == VIEW.c.image_id, schema.verdict.c.model_id == VIEW.c.model_id)
    .scalar_subquery()
    .label("fingerprint")
)

MANIFEST_COLUMNS = ("file", "label", "p_real", "uri")
#: Bytes that a file's name may have nearly everywhere, and characters of a suffix that are kept when it is cut.
LONGEST_NAME, LONGEST_SUFFIX = 255, 16
#: A file system says so of a name that another one has taken.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)

#: Looks for the image of a URI that had a fingerprint, and returns what makes it at a path, or raises FileExistsError
#: if something is there.
Prepare = Callable[[str, str, Settings], Callable[[Path], None]]


def sort_images(
    selection: Selection,
    target: Path,
    settings: Settings,
    prepare: Prepare,
    *,
    report: Callable[[str, str], None],
    progress: Callable[[int, int], None],
) -> Placed:
    """Copy or link each image that has a label into a folder named like it, and list them in ``manifest.csv``.

    An image that was scored more than once counts once, by its latest score.

    Args:
        selection: which verdicts.
        target: a folder that is empty or not there.
        settings: tell what may be read.
        prepare: ``copy_image`` or ``link_image``.
        report: called with the URI of an image that failed, and the reason.
        progress: called with the number of images that are done, and that of all.

    Raises:
        UsageError: the folder holds something or cannot be written, or models of several names scored the images.
    """
    total = _count_images(selection)
    done = Placed()
    try:
        _make_folders(target)
        # "x": of two exports at once into one folder, one is refused.
        with (target / "manifest.csv").open("x", newline="", encoding="utf-8") as file:
            manifest = csv.writer(file)
            manifest.writerow(MANIFEST_COLUMNS)
            for row in _labelled_images(selection):
                label = row.label.removesuffix(" (untrained)")
                try:
                    name = _place(prepare(row.uri, row.fingerprint, settings), target / label, row)
                except (ImageError, StorageError) as error:
                    done.failed += 1
                    report(row.uri, str(error))
                else:
                    done.labels[label] += 1
                    manifest.writerow((f"{label}/{name}", row.label, row.p_real, row.uri))
                progress(done.total, total)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    return done


def copy_image(uri: str, fingerprint: str, settings: Settings) -> Callable[[Path], None]:
    """Read an image, and return what writes it to a path where nothing is.

    Raises:
        ImageError: it cannot be read.
        StorageError: it cannot be read for a reason that may pass.
    """
    content = read_image(uri, roots=settings.roots, max_bytes=settings.max_bytes, fingerprint=fingerprint)
    return partial(_write_new, content)


def link_image(uri: str, _fingerprint: str, settings: Settings) -> Callable[[Path], None]:
    """Find an image, and return what makes a symbolic link to it at a path where nothing is.

    Raises:
        ImageError: it is gone, or not to be read.
    """
    path = locate_file(uri, roots=settings.roots)
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib has no business with undecodable names
        raise ImageError(Status.NOT_FOUND, "the file is gone")
    return partial(os.symlink, path)


def _count_images(selection: Selection) -> int:
    images = func.count(VIEW.c.image_id.distinct()).label("images")
    query = select(VIEW.c.model, images).where(VIEW.c.label.is_not(None)).group_by(VIEW.c.model)
    counts = {row.model: int(row.images) for row in selection.read(query)}
    if len(counts) > 1:
        names = ", ".join(sorted(counts))
        raise UsageError(f"{len(counts)} models have scored these images, {names}: choose one with --model")
    return sum(counts.values())


def _labelled_images(selection: Selection) -> Iterator[Row[Any]]:
    """Yield the latest verdict of each image that has a label."""
    columns = (VIEW.c.image_id, VIEW.c.uri, VIEW.c.label, VIEW.c.p_real, _FINGERPRINT)
    query = select(*columns).where(VIEW.c.label.is_not(None)).order_by(VIEW.c.image_id, VIEW.c.scored_at.desc())
    with selection.read(query) as rows:
        for _, same in groupby(rows, key=lambda row: row.image_id):
            yield next(same)


def _make_folders(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if next(target.iterdir(), None) is not None:
        raise UsageError(f"folder {target} is not empty: choose another one, nothing is ever overwritten")
    for label in LABELS:
        (target / label).mkdir()


def _write_new(content: bytes, path: Path) -> None:
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            path.unlink()  # a part of an image would look like a broken one
            raise


def _place(make: Callable[[Path], None], folder: Path, row: Row[Any]) -> str:
    """Make an image in a folder, under the first of its names that is free, and return that.

    Raises:
        ImageError: the file system takes none of its names.
    """
    for name in _names(row.uri, bytes(row.image_id)):
        try:
            make(folder / name)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                raise ImageError(Status.UNSUPPORTED, f"its name cannot be written: {error.strerror}") from error
            raise
        return name
    raise ImageError(Status.UNSUPPORTED, "all its names are taken")


def _names(uri: str, image_id: bytes) -> Iterator[str]:
    """Yield the names that an image may get: its own, then with a digest, cut where it gets too long.

    The name of a file that is not valid UTF-8 is percent-encoded, as it is in the URI.
    """
    name = uri.rpartition("/")[2]
    if len(name.encode()) <= LONGEST_NAME and name not in ("", ".", ".."):  # as members of archives may be called
        yield name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    for digest in (image_id[:4].hex(), image_id.hex()):
        end = f"-{digest}{suffix[:LONGEST_SUFFIX]}"
        yield stem.encode()[: LONGEST_NAME - len(end.encode())].decode(errors="ignore") + end
