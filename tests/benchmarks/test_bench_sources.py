"""The benchmark of sources runs, and its figures make sense."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from core.settings import load_settings
from tests.tiny import build_tiny_network

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a small network."""
    from model.importer import save_network

    settings = load_settings(data_dir=tmp_path_factory.mktemp("tiny"))
    save_network(build_tiny_network(), settings, name="tiny", preprocess="rgb-scaled", trained=False, source="tests")
    return settings.models_dir / "tiny"


@pytest.mark.tensorflow
@pytest.mark.timeout(600)  # several processes load TensorFlow, one after the other
def test_a_folder_and_a_bucket_are_compared_and_objects_listed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    words = ["--rounds", "1", "--images", "40", "--side", "64", "--objects", "2500", "--delay-ms", "5"]
    import_module("bench_sources").main([*words, "--artifact", str(tiny), "--out", str(tmp_path)])

    rows: list[dict[str, Any]] = json.loads((tmp_path / "bench_sources.json").read_text())["rows"]
    found = {row["what"]: row for row in rows}
    assert {what: row["images"] for what, row in found.items()} == {
        "producer run, a folder": 40,
        "producer run, S3": 40,
        "list": 2500,
        "producer enqueue": 2500,
    }
    for row in rows:
        assert row["images_per_second"] > 0
        assert 10 < row["peak_mb"] < 1000
        assert (row["first_job_s"] is not None) == (row["what"] == "producer enqueue")
        assert (row["server_cpu_us"] is not None) == (row["what"] != "producer run, a folder")
    assert 0 < found["producer run, S3"]["share_of_local"] < 10
    assert found["producer run, S3"]["off_by"] < 1e-3
