"""The benchmark of the whole pipeline: every contender that is installed runs, and its table tells no lies."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from core.settings import load_settings
from tests.tiny import build_tiny_network

ROOT = Path(__file__).parents[2]
RUN = "producer-run"
PATIENCE_SECONDS = 600  # several processes load TensorFlow, one after the other


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, as a module; each contender has only its first variant."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = import_module("bench_pipeline")
    for name, contender in module.CONTENDERS.items():
        monkeypatch.setitem(module.CONTENDERS, name, replace(contender, variants=contender.variants[:1]))
    return module


@pytest.fixture
def play(bench: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the benchmark on a few small pictures and return its results."""

    def run(artifact: Path, *contenders: str, rounds: int = 1) -> dict[str, Any]:
        words = ["--images", "8", "--slow-images", "5", "--sides", "64", "--rounds", str(rounds)]
        bench.main([*words, "--artifact", str(artifact), "--out", str(tmp_path), "--contenders", *contenders])
        return json.loads((tmp_path / "bench_pipeline.json").read_text())

    return run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a small network whose pictures are prepared as the shipped ones' are."""
    from model.importer import save_network

    settings = load_settings(data_dir=tmp_path_factory.mktemp("tiny"))
    save_network(build_tiny_network(), settings, name="tiny", preprocess="rgb-scaled", trained=False, source="tests")
    return settings.models_dir / "tiny"


@pytest.mark.tensorflow
@pytest.mark.timeout(PATIENCE_SECONDS)
def test_the_command_is_compared_with_its_limit(play: Callable[..., dict[str, Any]], tiny: Path) -> None:
    results = play(tiny, RUN, "limit")
    run, whole, limit = results["rows"]
    assert [run["contender"], whole["contender"], limit["contender"]] == [RUN, f"{RUN}, whole command", "limit"]
    assert run["run_is_times_as_fast"] == 1
    assert run["images_per_second"] > whole["images_per_second"] > 0
    assert whole["run_is_times_as_fast"] > 1
    for row in results["rows"]:
        assert (row["images"], row["side"]) == (8, 64)
        assert row["mean_p_real"] == pytest.approx(run["mean_p_real"], abs=0.01)
        assert row["off_by"] <= 0.01
    facts = results["rounds"][0]["facts"]
    assert 0 < facts["start_up_seconds"] < facts["first_verdict_seconds"] < facts["whole_seconds"]
    assert facts["peak_mib"].keys() == {"producer", "worker", "worker's children", "children"}
    assert min(facts["peak_mib"].values()) > 0


@pytest.mark.tensorflow
@pytest.mark.timeout(PATIENCE_SECONDS)
@pytest.mark.parametrize("name", ["card-loop", "tf-data", "celery"])
def test_a_contender_in_keras_scores_fewer_pictures(play: Callable[..., dict[str, Any]], tiny: Path, name: str) -> None:
    (row,) = play(tiny, name)["rows"]
    assert row["images_per_second"] > 0, row["notes"]
    assert row["images"] == 5
    assert 0 < row["mean_p_real"] < 1
    assert row["run_is_times_as_fast"] is None


@pytest.mark.tensorflow
@pytest.mark.timeout(PATIENCE_SECONDS)
@pytest.mark.parametrize(("name", "package"), [("celery-batches", "celery_batches"), ("ray-data", "ray")])
def test_a_contender_that_is_not_always_installed_scores_them_too(
    play: Callable[..., dict[str, Any]], tiny: Path, name: str, package: str
) -> None:
    pytest.importorskip(package)
    (row,) = play(tiny, name)["rows"]
    assert row["images_per_second"] > 0, row["notes"]
    assert 0 < row["mean_p_real"] < 1


def test_a_contender_that_does_not_run_is_listed_with_the_reason(
    play: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (row,) = play(tmp_path / "nowhere", "card-loop", rounds=2)["rows"]
    assert row["images_per_second"] is None
    assert "does not run: " in row["notes"]
    assert str(tmp_path / "nowhere") in row["notes"]


class Simulated:
    """Stands in for the processes: rates and scores by contender and variant."""

    def __init__(self, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.played: list[tuple[str, Any]] = []
        self.scores = {"producer_run": 0.5}
        monkeypatch.setattr(bench, "run_apart", self)

    def __call__(self, module: str, task: Any, variant: dict[str, Any]) -> dict[str, Any]:
        self.played.append((module, variant.get("batch")))
        facts = {"whole_seconds": 8.0, "start_up_seconds": 1.0, "first_verdict_seconds": 2.0, "peak_mib": {"worker": 9}}
        seconds = task.images / 100 if module == "producer_run" else task.images / variant.get("batch", 20)
        return {"seconds": seconds, "scores": [self.scores.get(module, 0.503)] * task.images, "facts": facts}


@pytest.fixture
def simulated(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Simulated:
    """What the benchmark runs instead of processes."""
    return Simulated(bench, monkeypatch)


def test_rounds_are_interleaved_and_only_the_best_variant_goes_on(
    play: Callable[..., dict[str, Any]], bench: Any, simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = ({"batch": 10}, {"batch": 40}, {"batch": 20})
    monkeypatch.setitem(bench.CONTENDERS, "tf-data", replace(bench.CONTENDERS["tf-data"], variants=variants))
    results = play(Path("any"), RUN, "tf-data", rounds=2)
    first, *rest = simulated.played
    assert first == ("producer_run", None)  # the conversion, which is not measured
    assert rest == [
        *[("producer_run", None), ("tf_data", 10), ("tf_data", 40), ("tf_data", 20)],
        *[("tf_data", 40), ("producer_run", None)],  # the other way round
    ]
    row = results["rows"][-1]
    assert (row["images_per_second"], row["run_is_times_as_fast"]) == (40, 2.5)
    assert "batch=40" in row["notes"]
    assert len(results["rounds"]) == 6


@pytest.mark.parametrize(("name", "is_told"), [("tf-data", True), ("card-loop", False)])
def test_other_scores_are_told_where_pictures_are_prepared_alike(
    play: Callable[..., dict[str, Any]], simulated: Simulated, name: str, is_told: bool
) -> None:
    assert "DIFFER" not in play(Path("any"), RUN, name)["rows"][-1]["notes"]
    simulated.scores |= {"tf_data": 0.52, "card_loop": 0.52}
    row = play(Path("any"), RUN, name)["rows"][-1]
    assert row["off_by"] == pytest.approx(0.02)
    assert row["notes"].startswith("SCORES DIFFER") == is_told
