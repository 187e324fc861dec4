"""The benchmarks of engines and stages, with the small network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import load_settings
from tests.tiny import make_tiny_artifact

pytestmark = pytest.mark.tensorflow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    settings = load_settings(data_dir=tmp_path / "models")
    make_tiny_artifact(settings, "tiny")
    return settings.models_dir / "tiny"


def rows_of(script: str, out: Path, *words: str | Path) -> list[dict[str, object]]:
    command = [sys.executable, BENCHMARKS / f"{script}.py", "--rounds", "1", "--out", out, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / f"{script}.json").read_text())
    assert result["machine"]["cores"] >= 1
    return list(result["rows"])


def test_engines_have_a_rate_a_size_and_a_distance_from_the_reference(tiny: Path, tmp_path: Path) -> None:
    words = ("--engines", "openvino/float32", "openvino/int8", "--batch-sizes", "2", "--processes", "2")
    rows = rows_of("bench_engine", tmp_path, "--models", tiny, "--seconds", "0.05", *words)

    measured, missing = rows
    assert (measured["engine"], measured["precision"], measured["processes"]) == ("openvino", "float32", 2)
    assert measured["images/s"] > 0
    assert measured["start-up s"] > 0
    assert measured["MiB"] > 50
    assert float(str(measured["largest change"])) < 1e-3
    assert missing["images/s"] is None
    assert "not in int8 yet" in str(missing["largest change"])


def test_stages_add_up_to_a_limit_that_a_run_is_compared_with(tiny: Path, tmp_path: Path) -> None:
    rows = rows_of("bench_stages", tmp_path, "--model", tiny, "--images", "256", "--sides", "64")

    costs = {row["stage"]: row["us/image on a core"] for row in rows[:-2]}
    assert list(costs) == ["read", "digest", "decode and resize", "perceptual hash", "predict", "save"]
    assert min(costs.values()) > 0
    limit, run = rows[-2:]
    cores = int(str(limit["stage"]).split()[1])
    assert limit["images/s"] == pytest.approx(cores / sum(costs.values()) * 1e6, rel=0.01)
    assert run["images/s"] > 0
