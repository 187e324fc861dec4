"""Reads: filters, orders, limits and counts mean the same on every database."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import pytest
from sqlalchemy import Engine, update

from core.errors import UsageError
from core.images import ImageRef
from core.verdicts import Status
from db import schema
from db.filters import Filter
from db.ledger import every_scan
from db.queries import COLUMNS, estimate_verdicts, list_verdicts
from db.statistics import read_statistics
from tests.integration.builders import Books, failed, refs, scored, write

URIS = (
    "/faces/a.jpg",
    "/faces/A.jpg",
    "/faces/ab.jpg",
    "/faces/a.jpeg",
    "/faces/sub/a.jpg",
    "/faces/sub/b.png",
    "/other/a.jpg",
    "/faces/100%.jpg",
    "/faces/100x.jpg",
    "/faces/a_b.jpg",
    "/faces/axb.jpg",
    "/faces/it's.jpg",
    '/faces/"quoted".jpg',
    "/faces/new\nline.jpg",
    "/faces/back\\slash.jpg",
    "/faces/[a].jpg",
    "/faces/a[b.jpg",
    "/faces/a]b.jpg",
    "/faces/a^b.jpg",
    "/faces/a-b.jpg",
    "/faces/(a)+{b}|c$.jpg",
    "/faces/été.jpg",
    "/faces/画像.jpg",
    "file:///faces/caf%E9.jpg",
)
GLOBS = (
    "*",
    "*.jpg",
    "/faces/?.jpg",
    "/faces/??.jpg",
    "/faces/*/*.jpg",
    "*/a.jpg",
    "/faces/a",
    "*/100%.*",
    "*%*",
    "*_*",
    "*/a?b.jpg",
    "*'*",
    '*"*',
    "*new\nline*",
    "*new?line*",
    "*\\*",
    "*/[aA].jpg",
    "*/[!a].jpg",
    "*/[a-b]*.png",
    "*/a[]]b.jpg",
    "*/a[!]]b.jpg",
    "*/a[[]b.jpg",
    "*/[[]a].jpg",
    "*/a[b.jpg",
    "*/a]b.jpg",
    "*/a[a^]b.jpg",
    "*/a[x-]b.jpg",
    "*/a[z-a]b.jpg",
    "*/a[\\x]b.jpg",
    "*(a)+{b}|c$*",
    "*/*.jpg*",
    "*/?t?.jpg",
    "*/??.jpg",
    "",
)


@pytest.fixture
def odd_names(books: Books) -> Books:
    """A scan of images with odd names."""
    books.save([scored(ImageRef(uri, "1-1", 1)) for uri in URIS])
    return books


@pytest.fixture
def mixed(books: Books, engine: Engine) -> Books:
    """A scan with scores 0.0, 0.1 ... 1.0, of which 0.4 to 0.6 are unsure, and two failures."""
    write(engine, update(schema.model).values(generated_below=0.35, real_above=0.65))
    images = refs(13)
    outcomes = [scored(ref, number / 10) for number, ref in enumerate(images[:11])]
    books.save([*outcomes, failed(images[11], Status.TRUNCATED), failed(images[12], Status.NOT_FOUND)])
    return books


def uris(engine: Engine, wanted: Filter | None = None, **options: Any) -> list[str]:
    """Return the URIs of a list."""
    return [row["uri"] for row in list_verdicts(engine, wanted or Filter(), **options)]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Filter(), 13),
        (Filter(label="generated"), 4),
        (Filter(label="unsure"), 3),
        (Filter(label="real"), 4),
        (Filter(status=Status.OK), 11),
        (Filter(status=Status.TRUNCATED), 1),
        (Filter(status=Status.CRASHED), 0),
        (Filter(min_score=0.5), 6),
        (Filter(max_score=0.5), 6),
        (Filter(min_score=0.4, max_score=0.6), 3),
        (Filter(min_score=0.0), 11),
        (Filter(min_score=0.6, max_score=0.4), 0),
        (Filter(path="*/0000?.jpg"), 10),
        (Filter(path="*/0000?.jpg", label="real"), 3),
        (Filter(model="card"), 13),
        (Filter(model="nobody"), 0),
        (Filter(scan_id=999), 0),
    ],
    ids=str,
)
def test_a_filter_restricts_lists_and_counts_alike(wanted: Filter, number: int, mixed: Books, engine: Engine) -> None:
    assert len(uris(engine, wanted)) == number
    assert estimate_verdicts(engine, wanted) == (number, False)
    found = read_statistics(engine, wanted)
    assert found.verdicts == sum(found.statuses.values()) == number
    assert sum(found.histogram) == sum(found.labels.values())


def test_a_filter_by_scan_and_model_tells_them_apart(new_books: Callable[..., Books], engine: Engine) -> None:
    one, two = new_books("one"), new_books("two")
    one.save([scored(ref) for ref in refs(3)])
    two.save([scored(ref) for ref in refs(5)])
    for books, number in ((one, 3), (two, 5)):
        assert estimate_verdicts(engine, Filter(scan_id=books.scan_id)) == (number, False)
        assert estimate_verdicts(engine, Filter(model=books.model.name)) == (number, False)
    assert every_scan(engine) == [one.scan_id, two.scan_id]


@pytest.mark.parametrize("glob", GLOBS)
def test_a_glob_means_the_same_on_every_database(glob: str, odd_names: Books, engine: Engine) -> None:
    assert set(uris(engine, Filter(path=glob))) == {uri for uri in URIS if fnmatchcase(uri, glob)}


@pytest.mark.parametrize("prefix", ["/faces/", "/faces/sub/", "/other/", "file:///", "/FACES/", "/x/", "/"])
def test_under_a_folder_is_what_begins_so_to_the_letter(prefix: str, odd_names: Books, engine: Engine) -> None:
    assert set(uris(engine, Filter(under=(prefix,)))) == {uri for uri in URIS if uri.startswith(prefix)}


@pytest.mark.parametrize("uri", URIS)
def test_under_a_file_is_that_file_alone(uri: str, odd_names: Books, engine: Engine) -> None:
    assert uris(engine, Filter(under=(uri,))) == [uri]


def test_under_takes_what_begins_with_any_of_several(odd_names: Books, engine: Engine) -> None:
    prefixes = ("/other/", "file:///", "/faces/sub/")
    assert set(uris(engine, Filter(under=prefixes))) == {uri for uri in URIS if uri.startswith(prefixes)}


def test_an_odd_name_comes_back_as_it_is(odd_names: Books, engine: Engine) -> None:
    assert set(uris(engine)) == set(URIS)


def test_rows_have_the_columns_in_their_order(mixed: Books, engine: Engine) -> None:
    for row in list_verdicts(engine, Filter()):
        assert tuple(row) == COLUMNS


@pytest.mark.parametrize(
    ("order", "expected"),
    [("score", [*range(11)]), ("-score", [*range(10, -1, -1)]), ("path", [*range(13)]), ("time", [*range(13)])],
)
def test_a_list_is_in_the_order_asked_for(order: str, expected: list[int], mixed: Books, engine: Engine) -> None:
    images = refs(13)
    assert uris(engine, order=order)[: len(expected)] == [images[number].uri for number in expected]


@pytest.mark.parametrize("order", ["score", "-score"])
def test_images_without_a_score_come_last_in_an_order_by_score(order: str, mixed: Books, engine: Engine) -> None:
    assert [row["p_real"] for row in list_verdicts(engine, Filter(), order=order)][-2:] == [None, None]


def test_equal_scores_are_in_the_order_of_their_names(books: Books, engine: Engine) -> None:
    books.save([scored(ref, 0.5) for ref in reversed(refs(20))])
    for order in ("score", "-score", "time"):
        assert uris(engine, order=order) == [ref.uri for ref in refs(20)]


@pytest.mark.parametrize(("limit", "number"), [(None, 13), (1, 1), (5, 5), (100, 13), (0, 0)])
def test_a_limit_is_kept(limit: int | None, number: int, mixed: Books, engine: Engine) -> None:
    assert len(uris(engine, limit=limit)) == number


def test_a_list_that_is_left_early_leaves_nothing_open(mixed: Books, engine: Engine) -> None:
    rows = list_verdicts(engine, Filter())
    assert next(rows)["uri"] == refs(1)[0].uri
    rows.close()
    assert engine.pool.checkedout() == 0
    assert estimate_verdicts(engine, Filter()) == (13, False)


def test_reading_does_not_wait_for_a_writer(mixed: Books, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(schema.verdict).values(p_real=0.5))
        assert estimate_verdicts(engine, Filter(min_score=0.95)) == (1, False)


def test_labels_and_statuses_are_counted_the_most_frequent_first(mixed: Books, engine: Engine) -> None:
    mixed.save([scored(ref, 0.99) for ref in refs(2, start=20)])
    found = read_statistics(engine, Filter())
    labels, statuses = found.labels, found.statuses
    assert labels == {"real": 6, "generated": 4, "unsure": 3}
    assert list(labels) == ["real", "generated", "unsure"]
    assert statuses == {"ok": 13, "truncated": 1, "not_found": 1}
    assert next(iter(statuses)) == "ok"


def test_untrained_labels_are_found_by_the_plain_word(new_books: Callable[..., Books], engine: Engine) -> None:
    new_books("untrained", trained=False).save([scored(refs(1)[0], 0.9)])
    new_books("card").save([scored(refs(1)[0], 0.9)])
    assert estimate_verdicts(engine, Filter(label="real")) == (2, False)
    assert read_statistics(engine, Filter()).labels == {"real": 1, "real (untrained)": 1}


def test_the_parts_of_a_histogram_include_their_lower_ends_and_the_last_its_upper_one(
    books: Books, engine: Engine
) -> None:
    scores = [0.0, 0.0999999, 0.1, 0.5, 0.9, 0.9999999, 1.0]
    books.save([*(scored(ref, score) for ref, score in zip(refs(7), scores, strict=True)), failed(refs(8)[7])])
    assert read_statistics(engine, Filter()).histogram == [2, 1, 0, 0, 0, 1, 0, 0, 0, 3]


def test_a_database_without_verdicts_has_lists_and_counts_of_nothing(engine: Engine) -> None:
    assert uris(engine) == []
    found = read_statistics(engine, Filter())
    assert found.labels == found.statuses == {}
    assert found.histogram == [0] * 10
    assert every_scan(engine) == []


@pytest.mark.parametrize("order", ["path", "score"])
def test_names_are_in_the_order_of_their_bytes(order: str, odd_names: Books, engine: Engine) -> None:
    assert uris(engine, order=order) == sorted(URIS, key=str.encode)


@pytest.mark.parametrize("text", ["/\udcff*", "\udcff"])
def test_what_is_not_utf8_is_refused(text: str) -> None:
    for name in ("path", "model"):
        with pytest.raises(UsageError, match="not UTF-8"):
            Filter(**{name: text})
