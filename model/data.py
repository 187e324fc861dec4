"""Labelled images: what `model train`, `evaluate`, `calibrate` and `audit` read.

A data set is a folder of two folders, ``real/`` and ``generated/``, which may lie in ``train/``, ``val/`` and
``test/``; or a folder with a ``manifest.csv``, or such a file itself, with the columns

``file``       relative to the manifest
``label``      ``real`` or ``generated``
``split``      ``train``, ``val`` or ``test``; optional
``source``     collection that the image is from; optional
``generator``  program that made it, empty for photos; optional
``face_x1``, ``face_y1``, ``face_x2``, ``face_y2``  the face's box, in pixels; optional

Images without a split get one by a digest of their name: 80 % train, 10 % val, 10 % test.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, cast

from core.errors import SourceError
from core.images import has_image_suffix

Split = Literal["train", "val", "test"]
Box = tuple[float, float, float, float]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
LABELS = ("generated", "real")
_BOX = ("face_x1", "face_y1", "face_x2", "face_y2")


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        path: of the file.
        is_real: its label.
        split: the part of the data set that it belongs to.
        source: collection that it is from; if unknown, its label.
        generator: program that made it; empty for photos and if unknown.
        box: the face's left, top, right and bottom in pixels, which may lie outside the image; None if unknown.
    """

    path: Path
    is_real: bool
    split: Split
    source: str
    generator: str = ""
    box: Box | None = None


def read_samples(data: Path, *, split: Split | None = None) -> list[Sample]:
    """List a labelled data set, sorted by path.

    Args:
        data: folder or ``manifest.csv``.
        split: only this part of it; None takes all.

    Raises:
        SourceError: it does not exist, is malformed, or does not hold images of both classes (in that split).
    """
    manifest = data / "manifest.csv" if data.is_dir() else data
    if not data.exists():
        raise SourceError(f"data set {data} does not exist")
    samples = _read_manifest(manifest) if manifest.is_file() else _read_folders(data)
    chosen = sorted((one for one in samples if split in {None, one.split}), key=lambda one: one.path)
    classes = {one.is_real for one in chosen}
    if len(classes) < 2:
        where = f"split {split} of {data}" if split else str(data)
        found = f"only {LABELS[classes.pop()]} images" if classes else "no images"
        raise SourceError(f"{where} holds {found}: it needs folders real/ and generated/, or a manifest.csv")
    return chosen


def _read_manifest(path: Path) -> Iterable[Sample]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"file", "label"} - set(rows.fieldnames or ())
            if missing:
                raise SourceError(f"{path} lacks the column {sorted(missing)[0]}")
            return [_from_row(row, path, number) for number, row in enumerate(rows, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _from_row(row: dict[str, str], path: Path, line: int) -> Sample:
    file, label = row["file"], row["label"]
    split = row.get("split") or _split_of(file or "")
    if not file or label not in LABELS or split not in SPLITS:
        raise SourceError(f"{path}, line {line}: file {file!r}, label {label!r}, split {split!r} is not an image's row")
    try:
        box = tuple(float(row[name]) for name in _BOX) if row.get(_BOX[0]) else None
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path}, line {line}: the face's box needs four numbers, {', '.join(_BOX)}") from error
    return Sample(
        path=path.parent / file,
        is_real=label == "real",
        split=split,
        source=row.get("source") or label,
        generator=row.get("generator") or "",
        box=cast("Box | None", box),
    )


def _read_folders(data: Path) -> Iterable[Sample]:
    """List the images below folders named ``real`` and ``generated``; a folder between is the source."""
    for parent, split in [(data, None), *((data / name, name) for name in SPLITS)]:
        for label in LABELS:
            for path in sorted((parent / label).rglob("*")):
                if path.is_file() and has_image_suffix(path.name):
                    inside = path.relative_to(parent / label)
                    source = inside.parts[0] if len(inside.parts) > 1 else label
                    yield Sample(path, label == "real", split or _split_of(str(inside)), source)


def _split_of(name: str) -> Split:
    place = int.from_bytes(sha256(name.encode(errors="surrogateescape")).digest()[:4]) % 10
    return "val" if place == 8 else "test" if place == 9 else "train"
