"""Statistics: what is counted, what is estimated, and by how much that may be off."""

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from core.images import ImageRef
from core.verdicts import Outcome, Status
from db import access, schema, statistics
from db.filters import Filter
from db.statistics import Group, about, read_statistics
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE, Site


@pytest.fixture
def site(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Commands that ask the same database as the test."""
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    return Site(tmp_path)


def ref(uri: str) -> ImageRef:
    """Return an image of this name."""
    return ImageRef(uri, "1-1", 1)


def truncated(uri: str, reason: str) -> Outcome:
    """Return the outcome of an image that failed for this reason."""
    return Outcome(ref(uri), Status.TRUNCATED, reason=reason)


def groups(engine: Engine, by: str, wanted: Filter | None = None, depth: int = 1) -> dict[str, int]:
    """Return the sizes of groups, in their order."""
    found = read_statistics(engine, wanted or Filter(), by=by, depth=depth)
    return {group.name: group.images for group in found.groups}


def test_everything_is_counted_the_most_frequent_first(books: Books, engine: Engine) -> None:
    images = refs(10)
    books.save(
        [
            *(scored(image, 0.9) for image in images[:5]),
            *(scored(image, 0.1) for image in images[5:7]),
            failed(images[7], Status.NOT_FOUND),
            failed(images[8], Status.TRUNCATED),
            failed(images[9], Status.TRUNCATED),
        ]
    )
    found = read_statistics(engine, Filter())
    assert (found.verdicts, found.margin, found.sample) == (10, 0, None)
    assert list(found.labels.items()) == [("real", 5), ("generated", 2)]
    assert list(found.statuses.items()) == [("ok", 7), ("truncated", 2), ("not_found", 1)]
    assert found.histogram == [0, 2, 0, 0, 0, 0, 0, 0, 0, 5]
    assert [(group.name, group.images) for group in found.reasons] == [
        ("truncated: it is truncated", 2),
        ("not_found: it is not_found", 1),
    ]
    assert set(found.margins.values()) == {0}
    assert found.groups == []


def test_no_verdicts_have_statistics_of_nothing(engine: Engine) -> None:
    for by in (None, *statistics.GROUPINGS):
        found = read_statistics(engine, Filter(), by=by)
        assert (found.verdicts, found.labels, found.statuses, found.groups) == (0, {}, {}, [])
        assert found.histogram == [0] * 10


def test_a_filter_restricts_statistics(new_books: Callable[..., Books], engine: Engine) -> None:
    one, two = new_books("one"), new_books("two")
    one.save([scored(image) for image in refs(3)])
    two.save([*(scored(image, 0.1) for image in refs(2)), failed(refs(3)[2])])
    assert read_statistics(engine, Filter()).verdicts == 6
    assert read_statistics(engine, Filter(model="one")).labels == {"real": 3}
    assert read_statistics(engine, Filter(scan_id=two.scan_id)).statuses == {"ok": 2, "truncated": 1}
    assert read_statistics(engine, Filter(model="one", scan_id=two.scan_id)).verdicts == 0
    assert read_statistics(engine, Filter(path="*/00001.jpg")).labels == {"real": 1, "generated": 1}
    assert read_statistics(engine, Filter(model="nobody")).verdicts == 0


def test_reasons_that_differ_in_numbers_alone_are_one(books: Books, engine: Engine) -> None:
    books.save(
        [truncated(f"/{size}.jpg", f"{size} bytes, the limit is 50") for size in range(100, 130)]
        + [truncated("/x.jpg", "the end is missing")]
    )
    assert groups(engine, "reason") == {
        "truncated: N bytes, the limit is N": 30,
        "truncated: the end is missing": 1,
    }


def test_numbers_anywhere_in_a_reason_make_no_difference(books: Books, engine: Engine) -> None:
    texts = [f"{number}: at byte {number}0 of {number}00" for number in range(20)] + ["007", "8 or 9", "10 or 11"]
    books.save([truncated(f"/{number}.jpg", text) for number, text in enumerate(texts)])
    assert groups(engine, "reason") == {
        "truncated: N: at byte N of N": 20,
        "truncated: N or N": 2,
        "truncated: N": 1,
    }
    assert read_statistics(engine, Filter(), is_exact=True).reasons == read_statistics(engine, Filter()).reasons


def test_a_reason_is_kept_as_far_as_an_index_can_hold_it(books: Books, engine: Engine) -> None:
    # No two alike: PostgreSQL would compress what repeats itself.
    reason = "'\"<script>\n" + "".join(chr(0x20000 + number) for number in range(4000))
    books.save([truncated("/a.jpg", reason), scored(ref("/b.jpg"))])
    (found,) = read_statistics(engine, Filter()).reasons
    assert found.name == f"truncated: {reason[: schema.REASON_LENGTH]}"
    books.save([truncated("/a.jpg", "cut off")])
    assert groups(engine, "reason") == {"truncated: cut off": 1}


def test_of_many_reasons_the_most_frequent_are_kept(
    books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_MOST_KINDS", 8)
    letters = "abcdefghijklmnopqrstuvwxyz"
    books.save(
        [truncated(f"/often{number}.jpg", "often") for number in range(20)]
        + [truncated(f"/{letter}.jpg", letter) for letter in letters]
    )
    found = read_statistics(engine, Filter())
    assert (found.reasons[0].name, found.reasons[0].images) == ("truncated: often", 20)
    assert len(found.reasons) <= 8
    assert found.statuses == {"truncated": 46}


def test_groups_have_labels_and_failures(books: Books, engine: Engine) -> None:
    images = refs(4)
    books.save([scored(images[0], 0.9), scored(images[1], 0.1), scored(images[2], 0.2), failed(images[3])])
    assert read_statistics(engine, Filter(), by="model").groups == [Group("card", 4, 0, {"generated": 2, "real": 1}, 1)]


def test_models_of_one_name_are_told_apart(new_books: Callable[..., Books], engine: Engine) -> None:
    one, two = new_books("card"), new_books("card", sha256="f" * 64)
    one.save([scored(image) for image in refs(2)])
    two.save([scored(image) for image in refs(3)])
    assert groups(engine, "model") == {f"card ({two.model.id[:8]})": 3, f"card ({one.model.id[:8]})": 2}


def test_scans_are_told_the_newest_first(new_books: Callable[..., Books], engine: Engine) -> None:
    scans = [new_books("card") for _ in range(11)]
    for number, books in enumerate(scans):
        books.save([scored(image) for image in refs(2, prefix=f"/{number}/")])
    assert list(groups(engine, "scan")) == [str(books.scan_id) for books in reversed(scans)]


def test_days_are_those_of_utc(books: Books, engine: Engine) -> None:
    books.save([scored(image) for image in refs(3)])
    late = datetime(2025, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    for image, moment in zip(refs(3), (late, late, datetime(2025, 3, 1, tzinfo=UTC)), strict=True):
        verdict = schema.verdict
        write(engine, update(verdict).where(verdict.c.image_id == image.id).values(scored_at=moment))
    assert list(groups(engine, "day").items()) == [("2025-03-02", 2), ("2025-03-01", 1)]


NAMES = (
    "/data/top.jpg",
    "/data/a/1.jpg",
    "/data/a/x/2.jpg",
    "/data/a/x/3.jpg",
    "/data/b/1.jpg",
    "/data/B/1.jpg",
    "/data/é'\n/1.jpg",
    "file:///data/caf%E9/1.jpg",
    "s3://bucket/k/1.jpg",
)


@pytest.mark.parametrize(
    ("depth", "path", "expected"),
    [
        (
            1,
            None,
            {
                "/data/": 1, "/data/a/": 3, "/data/b/": 1, "/data/B/": 1, "/data/é'\n/": 1, "file:///data/": 1,
                "s3://bucket/k/": 1,
            },
        ),
        (
            2,
            None,
            {
                "/data/": 1, "/data/a/": 1, "/data/a/x/": 2, "/data/b/": 1, "/data/B/": 1, "/data/é'\n/": 1,
                "file:///data/caf%E9/": 1, "s3://bucket/k/": 1,
            },
        ),
        (1, "/data/a/*", {"/data/a/": 1, "/data/a/x/": 2}),
        (1, "/data/b/1.jpg", {"/data/b/": 1}),
        (1, "*/[ab]/1.jpg", {"/data/a/": 1, "/data/b/": 1}),
    ],
)  # fmt: skip
def test_folders_are_counted_below_the_one_that_all_have_in_common(
    depth: int, path: str | None, expected: dict[str, int], books: Books, engine: Engine
) -> None:
    books.save([scored(ref(uri)) for uri in NAMES])
    assert groups(engine, "folder", Filter(path=path), depth) == expected


def test_of_many_folders_the_largest_are_kept(books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_GROUPS", 3)
    books.save([scored(ref(f"/{folder:02}/{number}.jpg")) for folder in range(20) for number in range(folder + 1)])
    found = read_statistics(engine, Filter(), by="folder")
    assert [(group.name, group.images) for group in found.groups] == [("/19/", 20), ("/18/", 19), ("/17/", 18)]
    assert found.groups_left_out == 17


@pytest.fixture
def many(books: Books, monkeypatch: pytest.MonkeyPatch) -> Books:
    """3,000 verdicts, a fifth of them real and 30 failures, where 1,000 are too many to be counted."""
    monkeypatch.setattr(access, "EXACT", 1000)
    monkeypatch.setattr(access, "FEW", 20)
    monkeypatch.setattr(access, "SAMPLE", 600)
    images = refs(3000)
    outcomes = [scored(image, 0.9 if number % 5 == 0 else 0.1) for number, image in enumerate(images)]
    outcomes[::100] = [failed(image, Status.CRASHED) for image in images[::100]]
    for start in range(0, 3000, 1000):
        books.save(outcomes[start : start + 1000])
    return books


def test_beyond_a_limit_numbers_are_estimated_and_failures_still_counted(many: Books, engine: Engine) -> None:
    found = read_statistics(engine, Filter(), by="model")
    assert found.sample is not None
    assert 400 < found.sample < 800
    assert 0 < found.margin < 300
    assert abs(found.verdicts - 3000) <= found.margin
    for name, number in {"real": 570, "generated": 2400, "ok": 2970}.items():
        assert abs((found.labels | found.statuses)[name] - number) <= found.margins[name]
        assert found.margins[name] > 0
    assert (found.statuses["crashed"], found.margins["crashed"]) == (30, 0)
    assert abs(sum(found.histogram) - 2970) <= found.margins["ok"] + 5  # each bin is rounded
    (group,) = found.groups
    assert abs(group.images - 3000) <= group.margin


def test_of_many_failures_the_rare_ones_are_still_counted(many: Books, engine: Engine) -> None:
    images = refs(2000, prefix="/broken/")
    for start in range(0, 2000, 1000):
        many.save([failed(image) for image in images[start : start + 1000]])
    many.save([failed(image, Status.NO_FACE) for image in refs(40, prefix="/rooms/")])
    found = read_statistics(engine, Filter())
    assert (found.statuses["crashed"], found.margins["crashed"]) == (30, 0)
    assert (found.statuses["no_face"], found.margins["no_face"]) == (40, 0)
    assert abs(found.statuses["truncated"] - 2000) <= found.margins["truncated"] < 1000
    assert abs(found.verdicts - 5040) <= found.margin
    assert sum(found.statuses.values()) == found.verdicts
    assert [(group.name, group.margin > 0) for group in found.reasons] == [
        ("truncated: it is truncated", True),
        ("crashed: it is crashed", False),
    ]


def test_everything_is_read_if_that_is_asked_for(many: Books, engine: Engine) -> None:
    found = read_statistics(engine, Filter(), by="folder", is_exact=True)
    assert (found.sample, found.verdicts, found.labels) == (None, 3000, {"generated": 2400, "real": 570})
    assert found.groups == [Group("/faces/", 3000, 0, {"generated": 2400, "real": 570}, 30)]


@pytest.mark.parametrize("by", [None, *statistics.GROUPINGS])
def test_a_small_part_of_many_is_counted(by: str | None, many: Books, engine: Engine) -> None:
    many.save([scored(image) for image in refs(50, prefix="/few/")])
    later = Books(engine, many.model)
    later.save([scored(image, 0.1) for image in refs(60, prefix="/later/")])
    for wanted, number in (
        (Filter(path="/few/*"), 50),
        (Filter(scan_id=later.scan_id), 60),
        (Filter(under=("/few/",)), 50),
    ):
        found = read_statistics(engine, wanted, by=by)
        assert (found.verdicts, found.sample, found.margin) == (number, None, 0)


def test_a_sample_can_be_grouped_by_folder(many: Books, engine: Engine) -> None:
    (group,) = read_statistics(engine, Filter(), by="folder").groups
    assert group.name == "/faces/"
    assert abs(group.images - 3000) <= group.margin


def test_several_models_of_an_image_widen_the_margin(
    many: Books, new_books: Callable[..., Books], engine: Engine
) -> None:
    alone = read_statistics(engine, Filter(model="card")).margin
    other = new_books("other")
    for start in range(0, 3000, 1000):
        other.save([scored(image) for image in refs(1000, start=start)])
    found = read_statistics(engine, Filter())
    assert abs(found.verdicts - 6000) <= found.margin
    assert found.margin > alone


def test_an_estimate_has_no_more_digits_than_its_margin() -> None:
    assert about(1_234_567, 0) == "1,234,567"
    assert about(1_234_567, 23_456) == "about 1,235,000 ± 23,000"
    assert about(12, 7) == "about 12 ± 7"


def test_the_command_prints_what_was_counted(site: Site, books: Books, engine: Engine) -> None:
    books.save([*(scored(image) for image in refs(3)), failed(refs(4)[3])])
    shown = site.ok("db", "stats", "--by", "folder")
    for text in ("4 verdicts", "real", "75.0%", "truncated: it is truncated", "/faces/", "worker@host"):
        assert text in shown
    assert "about" not in shown
    document = json.loads(site.ok("db", "stats", "--by", "folder", "--json"))
    assert (document["estimated"], document["sample"], document["by"]) == (False, None, "folder")
    assert document["labels"] == {"real": 3}
    assert document["groups"] == [asdict(Group("/faces/", 4, 0, {"real": 3}, 1))]
    assert document["throughput"][0]["seconds"]["total"] == {"median": 1.0, "p95": 1.0}
    assert json.loads(site.ok("db", "stats", "--path", "/none/*", "--json"))["throughput"] == []


def test_a_grouping_that_does_not_exist_ends_with_2(site: Site) -> None:
    assert "--by colour" in site.error(2, "db", "stats", "--by", "colour")


def test_hostile_folders_and_reasons_are_printed_and_do_nothing(site: Site, books: Books) -> None:
    books.save([truncated(f"/{name}/x.jpg".replace("//", "/"), name) for name in HOSTILE])
    for by, kept in (("folder", "[link=file:"), ("reason", "truncated: [red]markup[/red].jpg")):
        shown = site.ok("db", "stats", "--by", by)
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert kept in shown
