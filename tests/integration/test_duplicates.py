"""Duplicates: the same bytes under several names, and pictures that nearly look the same."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, update

from core.errors import UsageError
from core.images import ImageRef
from core.verdicts import Outcome
from db import duplicates, near, schema
from db.duplicates import Copy, Duplicates, exact_duplicates, near_duplicates
from db.near import NearImages
from tests.integration.builders import Books, failed, scored, write
from tests.integration.commands import HOSTILE, Site


def outcome(uri: str, digest: int | None = None, phash: int | None = None, p_real: float = 0.9) -> Outcome:
    """Return the outcome of an image with these bytes and this picture."""
    content = None if digest is None else bytes([digest]) * 16
    return replace(scored(ImageRef(uri, "1-1", 1), p_real), digest=content, phash=phash)


@pytest.fixture
def site(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Commands that ask the same database as the test."""
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    return Site(tmp_path)


def test_the_same_bytes_under_several_names_are_a_group_the_biggest_first(books: Books, engine: Engine) -> None:
    names = {1: "ab", 2: "Zcé", 3: "d"}
    books.save([outcome(f"/{name}.jpg", digest) for digest, some in names.items() for name in some])
    books.save([outcome("/none.jpg"), outcome("/nothing.jpg"), failed(ImageRef("/bad.jpg", "1-1", 1))])
    verdicts = {"card": "real"}
    expected = [
        Duplicates("02" * 16, 3, [Copy(f"/{name}.jpg", verdicts) for name in "Zcé"]),
        Duplicates("01" * 16, 2, [Copy(f"/{name}.jpg", verdicts) for name in "ab"]),
    ]
    assert list(exact_duplicates(engine)) == expected
    assert list(exact_duplicates(engine, limit=1)) == expected[:1]


def test_an_image_that_two_models_scored_is_no_duplicate_of_itself(
    new_books: Callable[..., Books], engine: Engine
) -> None:
    one, two = new_books("one"), new_books("two")
    one.save([outcome("/a.jpg", 1), outcome("/b.jpg", 2)])
    two.save([outcome("/a.jpg", 1, p_real=0.1), outcome("/c.jpg", 2)])
    assert list(exact_duplicates(engine)) == [
        Duplicates("02" * 16, 2, [Copy("/b.jpg", {"one": "real"}), Copy("/c.jpg", {"two": "real"})])
    ]
    two.save([outcome("/d.jpg", 1)])
    (_, group) = exact_duplicates(engine)
    (group,) = [found for found in exact_duplicates(engine) if found.key == "01" * 16]
    assert group.images == 2
    assert group.copies[0] == Copy("/a.jpg", {"one": "real", "two": "generated"})


def test_of_a_huge_group_the_first_are_named(books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_NAMED", 2)
    books.save([outcome(f"/{number}.jpg", 1, phash=7) for number in range(5)])
    books.save([outcome(f"/other/{number}.jpg", 2, phash=0x7FFF0000) for number in range(3)])
    for found in (list(exact_duplicates(engine)), list(near_duplicates(engine, distance=1))):
        assert [(group.images, len(group.copies)) for group in found] == [(5, 2), (3, 2)]
        assert next(copy.uri for copy in found[0].copies) in {f"/{number}.jpg" for number in range(5)}


def test_no_duplicates_are_nothing(books: Books, engine: Engine) -> None:
    assert list(exact_duplicates(engine)) == list(near_duplicates(engine, distance=3)) == []
    books.save([outcome("/a.jpg", 1, phash=0), outcome("/b.jpg", 2, phash=-1), outcome("/c.jpg", 3)])
    assert list(exact_duplicates(engine)) == list(near_duplicates(engine, distance=3)) == []


def test_pictures_are_near_if_few_bits_differ(books: Books, engine: Engine) -> None:
    books.save(
        [
            outcome("/a.jpg", phash=-1),
            outcome("/b.jpg", phash=-8, p_real=0.1),  # three bits from a
            outcome("/c.jpg", phash=0x0F0F),
            outcome("/d.jpg", phash=0x0F0F),
            outcome("/e.jpg", phash=0x0F0F ^ (1 << 62)),
            outcome("/far.jpg", phash=0x3333333333333333),
        ]
    )
    found = list(near_duplicates(engine, distance=3))
    assert [[copy.uri for copy in group.copies] for group in found] == [
        ["/c.jpg", "/d.jpg", "/e.jpg"],
        ["/a.jpg", "/b.jpg"],
    ]
    assert found[1].copies == [Copy("/a.jpg", {"card": "real"}), Copy("/b.jpg", {"card": "generated"})]
    assert found[0].key == f"{0x0F0F:016x}"
    assert [group.images for group in near_duplicates(engine, distance=2)] == [3]
    assert [group.images for group in near_duplicates(engine, distance=0)] == [2]
    assert len(list(near_duplicates(engine, distance=3, limit=1))) == 1


@pytest.mark.parametrize("distance", range(near.FARTHEST + 1))
def test_groups_are_those_that_comparing_every_pair_finds(distance: int) -> None:
    random = Random(distance)
    hashes = [random.getrandbits(64) for _ in range(150)]
    for _ in range(250):  # neighbours of neighbours, a bit at a time, some of them too far
        flipped = random.sample(range(64), random.randint(0, distance + 2))
        hashes.append(random.choice(hashes) ^ sum(1 << bit for bit in flipped))
    images = NearImages()
    for start in range(0, 400, 100):
        some = range(start, start + 100)
        images.add([number.to_bytes(16) for number in some], [signed(hashes[number]) for number in some])
    found = [{int.from_bytes(each) for each in ids} for _, ids in images.groups(distance)]
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)
    assert sorted(map(sorted, found)) == sorted(map(sorted, compare_all(hashes, distance)))


def signed(number: int) -> int:
    """Return 64 bits as the database has them."""
    return number - (1 << 64) if number >> 63 else number


def compare_all(hashes: list[int], distance: int) -> list[set[int]]:
    """Return groups of near hashes the slow way."""
    groups = {number: {number} for number in range(len(hashes))}
    for one, other in combinations(range(len(hashes)), 2):
        if (hashes[one] ^ hashes[other]).bit_count() <= distance and groups[one] is not groups[other]:
            groups[one] |= groups[other]
            for member in groups[other]:
                groups[member] = groups[one]
    return [group for number, group in groups.items() if min(group) == number and len(group) > 1]


def test_a_hash_that_very_many_have_joins_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "COMMON", 5)
    images = NearImages()
    hashes = [0] * 6 + [1, 2, 2]
    images.add([number.to_bytes(16) for number in range(len(hashes))], hashes)
    assert [len(ids) for _, ids in images.groups(3)] == [6, 3]


def test_a_chain_of_near_pictures_is_one_group() -> None:
    hashes = [signed((1 << length) - 1) for length in range(0, 64, 2)]
    images = NearImages()
    images.add([number.to_bytes(16) for number in range(len(hashes))], hashes)
    assert [len(ids) for _, ids in images.groups(2)] == [len(hashes)]
    images.add([number.to_bytes(16) for number in range(len(hashes))], hashes)
    assert list(images.groups(1)) == []


def test_without_numpy_the_command_says_what_to_install(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, "db.near")
    monkeypatch.delattr("db.near")
    with pytest.raises(UsageError, match=r"numpy.* is not installed: pip install 'facesieve\[worker\]'"):
        list(near_duplicates(engine, distance=3))


def test_the_command_prints_groups_and_their_labels(site: Site, books: Books, engine: Engine) -> None:
    books.save([outcome(f"/{number:02}.jpg", 1, phash=3) for number in range(12)])
    books.save([outcome("/x.jpg", 2, phash=-1), outcome("/y.jpg", 2, phash=-2, p_real=0.1)])
    for words in ((), ("--near",)):
        done = site.run("db", "duplicates", *words)
        assert done.returncode == 0
        assert "12 images" in done.stdout
        assert "/09.jpg  card: real" in done.stdout
        assert "/10.jpg" not in done.stdout
        assert "and 2 more" in done.stdout
        assert "/y.jpg  card: generated" in done.stdout
        assert done.stdout.endswith("2 groups\n")
    lines = [json.loads(line) for line in site.ok("db", "duplicates", "--json").splitlines()]
    assert [line["images"] for line in lines] == [12, 2]
    assert lines[1]["copies"][0] == {"uri": "/x.jpg", "verdicts": {"card": "real"}}
    assert "perhaps more" in site.ok("db", "duplicates", "--limit", 1)


def test_hostile_names_are_printed_and_do_nothing(site: Site, books: Books, engine: Engine) -> None:
    write(engine, update(schema.model).values(generated_below=0.1, real_above=0.95))
    books.save([outcome(f"/{name}", 1, phash=5) for name in HOSTILE])
    for words in ((), ("--near",)):
        shown = site.ok("db", "duplicates", *words)
        assert all(char.isprintable() or char == "\n" for char in shown)
        assert "[red]markup[/red].jpg  card: unsure" in shown
        (group,) = [json.loads(line) for line in site.ok("db", "duplicates", *words, "--json").splitlines()]
        assert {copy["uri"] for copy in group["copies"]} == {f"/{name}" for name in HOSTILE}
