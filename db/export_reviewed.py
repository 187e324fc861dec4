"""Write what people said of images as a data set that `model train` reads."""

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from sqlalchemy import Engine, func, select

from core.errors import ImageError, UsageError
from core.uris import uri_to_path
from core.verdicts import Status
from db import schema
from db.engine import translated
from db.export import Placed
from db.export_files import check_file
from db.ledger import reading

MANIFEST_COLUMNS = ("file", "label", "split", "source", "generator")


def write_reviewed(engine: Engine, target: Path, *, overwrite: bool, report: Callable[[str, str], None]) -> Placed:
    """Write a ``manifest.csv`` of the images that were reviewed, by the newest review of each.

    Those that it found unclear are left out. The split follows from the image's id: 80 % train, 10 % val, 10 % test.

    Args:
        engine: of the database.
        target: the file.
        overwrite: whether to replace it.
        report: called with the URI of an image that the file cannot hold, and the reason.

    Raises:
        UsageError: nothing was reviewed as real or generated, or the file exists or cannot be written.
        DatabaseError: the database does not answer.
    """
    check_file(target, overwrite=overwrite)
    placed = Placed()
    samples = []
    for image_id, uri, label in _newest_reviews(engine):
        try:
            path = _nameable_path(uri)
        except ImageError as error:
            placed.failed += 1
            report(uri, str(error))
        else:
            placed.labels[label] += 1
            samples.append((path, label, _split_of(image_id), path.parent.name or "reviewed", ""))
    if not placed.total:
        raise UsageError("no image has been reviewed as real or generated: there is nothing to write")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
            new = Path(scratch, target.name)
            with new.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([MANIFEST_COLUMNS, *samples])
            new.replace(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    return placed


def _newest_reviews(engine: Engine) -> list[tuple[bytes, str, str]]:
    """Return id, URI and label of the images that are not unclear; people review no more than memory holds."""
    image, review = schema.image, schema.review
    newest = select(func.max(review.c.id)).group_by(review.c.image_id)
    query = (
        select(image.c.id, image.c.uri, review.c.label)
        .join(review, review.c.image_id == image.c.id)
        .where(review.c.id.in_(newest), review.c.label != "unclear")
        .order_by(image.c.uri)
    )
    with translated(engine), reading(engine) as connection:
        return [(bytes(row.id), row.uri, row.label) for row in connection.execute(query)]


def _nameable_path(uri: str) -> PurePosixPath:
    path = uri_to_path(uri)
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ImageError(Status.UNSUPPORTED, "its name is not valid UTF-8: a manifest cannot hold it") from error
    return PurePosixPath(path)


def _split_of(image_id: bytes) -> str:
    """Return the split of an image; its id is a digest, and so as good as drawn."""
    place = int.from_bytes(image_id[:4]) % 10
    return "val" if place == 8 else "test" if place == 9 else "train"
