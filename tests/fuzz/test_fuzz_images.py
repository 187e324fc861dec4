"""Some hundred broken images: each ends with a status, and each can be made again."""

import sys
from pathlib import Path
from random import Random

import pytest

from core.settings import load_settings
from core.verdicts import Status
from model.formats import KNOWN, recognise
from tests.fuzz.fuzz_images import MAX_PIXELS, PRESETS, WorkerWay, faults_of, fuzz, make_case, show, tabulate
from tests.fuzz.mutations import LONGEST, mutate, split
from tests.fuzz.sandbox import Limits
from tests.fuzz.seeds import Seed, draw_seeds

SEEDS = draw_seeds()
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_there_are_seeds_of_every_format_that_is_decoded() -> None:
    assert {seed.format for seed in SEEDS} == set(KNOWN.split(", "))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_every_seed_is_sound(seed: Seed, tmp_path: Path) -> None:
    assert recognise(seed.content) == seed.format
    (tmp_path / "seed").write_bytes(seed.content)
    way = WorkerWay(load_settings(max_pixels=MAX_PIXELS))
    found = {way(str(tmp_path / "seed"), number) for number in range(len(PRESETS))}
    # cv2 gives floating-point pixels to nobody who asks for 8 bits.
    assert found == {Status.UNREADABLE if "floating" in seed.name else Status.OK}


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_the_parts_of_a_file_are_the_file_however_broken(seed: Seed) -> None:
    assert len(split(seed.format, seed.content)) > 1
    for number in range(30):
        broken = mutate(seed, SEEDS, Random(number)) or b"x"
        assert b"".join(split(seed.format, broken)) == broken
        assert len(broken) <= LONGEST


def test_a_case_is_the_same_every_time_and_another_with_another_seed() -> None:
    assert make_case(17, seed=1) == make_case(17, seed=1)
    assert len({make_case(case, seed)[1] for case in range(100) for seed in (1, 2)}) > 190


@on_linux
@pytest.mark.parametrize(("way", "number"), [("worker", 500), ("thumbnail", 100)])
def test_every_broken_image_ends_with_a_status(way: str, number: int) -> None:
    results = fuzz(way, number, seed=0, children=2, limits=Limits())
    rows = tabulate(results)
    show(rows)
    assert faults_of(results) == []
    assert sorted(result.case for result in results) == list(range(number))
    for row in rows:
        assert row["images"] == sum(row[status] for status in Status if status in row)
        assert row["ok"] < row["images"]
    assert sum(row["ok"] for row in rows) > number / 10
