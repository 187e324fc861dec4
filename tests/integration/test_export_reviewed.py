"""Reviewed images, written down as a data set for a training."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from core.errors import UsageError
from core.images import ImageRef
from db import schema
from db.export import Placed
from db.export_reviewed import write_reviewed
from model.data import read_samples
from tests.integration.builders import Books, refs, scored, write
from tests.integration.commands import HOSTILE


def refuse(uri: str, reason: str) -> None:
    """Take no report."""
    pytest.fail(f"{uri!r}: {reason}")


def review(engine: Engine, *reviews: tuple[ImageRef, str]) -> None:
    """Write down what somebody said of images, one after the other."""
    for ref, label in reviews:
        values = {"image_id": ref.id, "label": label, "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
        write(engine, insert(schema.review).values(values))


def test_a_training_reads_what_was_reviewed_by_the_newest_review_of_each_image(
    books: Books, engine: Engine, tmp_path: Path
) -> None:
    images = [ImageRef(f"/faces/{name}", "1-1", 1) for name in (*HOSTILE, "real.jpg", "unclear.jpg", "unseen.jpg")]
    *hostile, real, unclear, _ = images
    odd, top = ImageRef("file:///faces/caf%C3%A9.jpg", "1-1", 1), ImageRef("/top.jpg", "1-1", 1)
    books.save([scored(ref) for ref in (*images, odd, top)])
    review(engine, *((ref, "generated") for ref in hostile))
    review(engine, (real, "generated"), (unclear, "real"), (odd, "unclear"), (top, "real"))
    review(engine, (real, "unclear"), (unclear, "unclear"), (odd, "real"), (real, "real"))
    placed = write_reviewed(engine, tmp_path / "manifest.csv", overwrite=False, report=refuse)
    assert placed == Placed(Counter({"generated": len(hostile), "real": 3}))
    samples = {sample.path: sample for sample in read_samples(tmp_path / "manifest.csv")}
    expected = {Path(ref.uri) for ref in (*hostile, real, top)} | {Path("/faces/café.jpg")}
    assert samples.keys() == expected
    assert {path for path, sample in samples.items() if sample.is_real} == {
        Path(real.uri), Path("/faces/café.jpg"), Path(top.uri)
    }  # fmt: skip
    assert {path: sample.source for path, sample in samples.items()} == {
        path: path.parent.name or "reviewed" for path in expected
    }
    assert samples[Path(top.uri)].source == "reviewed"
    assert {sample.generator for sample in samples.values()} == {""}


def test_the_split_of_a_reviewed_image_is_always_the_same_and_8_1_1(
    books: Books, engine: Engine, tmp_path: Path
) -> None:
    images = refs(600)
    books.save([scored(ref) for ref in images])
    rows = [
        {"image_id": ref.id, "label": label, "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
        for ref, label in zip(images, ("real", "generated") * 300, strict=True)
    ]
    write(engine, insert(schema.review).values(rows[:300]))
    first = split_of_reviewed(engine, tmp_path)
    write(engine, insert(schema.review).values(rows[300:]))
    second = split_of_reviewed(engine, tmp_path)
    assert first.items() <= second.items()
    counts = Counter(second.values())
    assert counts.keys() == {"train", "val", "test"}
    assert counts["train"] == pytest.approx(480, abs=40)
    assert counts["val"] == pytest.approx(60, abs=30)


def split_of_reviewed(engine: Engine, folder: Path) -> dict[Path, str]:
    """Return the splits that a training gets to see."""
    write_reviewed(engine, folder / "manifest.csv", overwrite=True, report=refuse)
    return {sample.path: sample.split for sample in read_samples(folder / "manifest.csv")}


def test_reviewed_images_that_a_manifest_cannot_hold_are_named(books: Books, engine: Engine, tmp_path: Path) -> None:
    good, *bad = (ImageRef(uri, "1-1", 1) for uri in ("/faces/a.jpg", "file:///faces/caf%E9.jpg", "s3://bucket/a.jpg"))
    books.save([scored(ref) for ref in (good, *bad)])
    review(engine, *((ref, "real") for ref in (good, *bad)))
    found: dict[str, str] = {}
    placed = write_reviewed(engine, tmp_path / "manifest.csv", overwrite=False, report=found.__setitem__)
    assert placed == Placed(Counter({"real": 1}), failed=2)
    assert found.keys() == {ref.uri for ref in bad}


def test_a_manifest_of_reviews_is_replaced_only_if_that_is_asked_for(
    books: Books, engine: Engine, tmp_path: Path
) -> None:
    (ref,) = refs(1)
    books.save([scored(ref)])
    target = tmp_path / "manifest.csv"
    with pytest.raises(UsageError, match="nothing to write"):
        write_reviewed(engine, target, overwrite=False, report=refuse)
    review(engine, (ref, "real"))
    target.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        write_reviewed(engine, target, overwrite=False, report=refuse)
    assert target.read_text() == "precious"
    write_reviewed(engine, target, overwrite=True, report=refuse)
    assert ref.uri in target.read_text()
