"""The engine for CPUs: the scores of the reference, from a cache, or not at all."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import ModelError, UsageError
from core.manifest import read_manifest
from core.settings import load_settings
from model import openvino_engine, predictor, runtime
from model.parity import MAX_DRIFT, SAMPLES, sample_pixels
from model.predictor import Predictor, check_engine, check_parity, load_predictor
from tests import drawn

pytestmark = pytest.mark.tensorflow

EXAMPLES = Path(__file__).parents[2] / "examples" / "faces"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests of this file share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose scores follow the brightness of an image, steeply."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("models"))
    drawn.make_bright_artifact(settings)
    return settings.models_dir / "bright"


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    """Eleven images from dark to bright, no batch of four or one."""
    shades = np.linspace(90, 165, 11)[:, None, None, None]
    noise = np.random.default_rng(0).normal(0, 20, (11, 224, 224, 3))
    return (shades + noise).clip(0, 255).astype(np.uint8)


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def warned() -> Iterator[list[logging.LogRecord]]:
    """What the model's logger warns of; NNCF and OpenVINO turn down pytest's own handlers and the root logger."""
    kept, logger = Kept(), logging.getLogger("facesieve")
    logger.addHandler(kept)
    logger.setLevel(logging.WARNING)
    yield kept.records
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(kept)


def load(folder: Path, cache: Path | None, engine: str = "openvino", precision: str = "float32") -> Predictor:
    return load_predictor(folder, engine=engine, precision=precision, batch_size=4, cache=cache)


def test_scores_are_those_of_the_reference_for_any_number_of_images(
    bright: Path, cache: Path, pixels: NDArray[np.uint8]
) -> None:
    fast, reference = load(bright, cache), load(bright, None, "tensorflow")
    fast.warm_up()
    for count in (11, 4, 1, 0):
        np.testing.assert_allclose(fast.predict(pixels[:count]), reference.predict(pixels[:count]), atol=1e-5)
    assert (fast.engine, fast.precision) == ("openvino", "float32")
    assert np.ptp(reference.predict(pixels)) > 0.5, "scores that are all alike would show nothing"


def test_an_image_has_the_same_score_whatever_the_batch_it_is_in(
    bright: Path, cache: Path, pixels: NDArray[np.uint8]
) -> None:
    fast = load(bright, cache)
    together = fast.predict(pixels)
    alone = np.concatenate([fast.predict(pixels[index : index + 1]) for index in range(len(pixels))])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_mirror_image_counts_if_the_manifest_says_so(
    bright: Path, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    folder = shutil.copytree(bright, tmp_path / "flipped")
    manifest = read_manifest(folder).model_copy(update={"flip": True})
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    assert check_parity(load(folder, tmp_path), pixels) < 1e-5


def start_loading(folder: Path, cache: Path) -> "subprocess.Popen[str]":
    """Load an artifact in a process of its own, which prints what it has imported for that."""
    program = (
        "import sys; from pathlib import Path; from model.predictor import load_predictor;"
        f"load_predictor(Path({str(folder)!r}), engine='openvino', precision='float32', cache=Path({str(cache)!r}))"
        ".warm_up(); print(*(bool(sys.modules.get(name)) for name in ('tensorflow', 'openvino_telemetry')))"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_load_takes_the_cache_and_no_tensorflow(bright: Path, cache: Path) -> None:
    load(bright, cache)
    process = start_loading(bright, cache)
    assert process.communicate(timeout=120) == ("False False\n", "")
    assert process.returncode == 0


def test_two_workers_that_convert_at_once_do_each_other_no_harm(bright: Path, tmp_path: Path) -> None:
    for process in [start_loading(bright, tmp_path) for _ in range(2)]:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    (kept,) = (tmp_path / "openvino").iterdir()
    assert not kept.name.startswith(".")


def test_auto_on_a_cpu_is_openvino_in_a_precision_that_passes(
    bright: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "has_gpu", lambda: False)
    chosen = load(bright, cache, "auto", "auto")
    assert chosen.engine == "openvino"
    assert check_parity(chosen, sample_pixels("rgb-scaled")) <= MAX_DRIFT


def test_auto_without_a_cache_or_with_a_gpu_is_tensorflow(
    bright: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(bright, None, "auto", "auto").engine == "tensorflow"
    monkeypatch.setattr(predictor, "has_gpu", lambda: True)
    assert load(bright, cache, "auto", "auto").engine == "tensorflow"


def test_a_gpu_counts_unless_the_process_is_pinned_to_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "Path", lambda _: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not runtime.has_gpu()
    (tmp_path / "nvidia0").touch()
    assert runtime.has_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not runtime.has_gpu()


def test_scores_that_drift_make_auto_fall_back_step_by_step(
    bright: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, warned: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(predictor, "has_gpu", lambda: False)
    monkeypatch.setattr(openvino_engine, "preferred_precision", lambda: "bf16")
    limits = iter((-1.0, MAX_DRIFT))
    monkeypatch.setattr(predictor, "MAX_DRIFT", Limit(limits))
    assert load(bright, cache, "auto", "auto").precision == "float32"
    monkeypatch.setattr(predictor, "MAX_DRIFT", -1.0)
    assert load(bright, cache, "auto", "auto").engine == "tensorflow"
    assert [record.levelno for record in warned] == [logging.WARNING] * 4
    assert "bright on openvino in bf16 changes p_real" in warned[0].getMessage()
    assert "use --engine tensorflow" in warned[-1].getMessage()


def test_a_precision_that_is_asked_for_is_given_with_a_warning(
    bright: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, warned: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(predictor, "MAX_DRIFT", -1.0)
    assert load(bright, cache, "openvino", "bf16").precision == "bf16"
    assert "changes p_real" in warned[0].getMessage()


def test_a_cache_that_cannot_be_written_is_named(bright: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cache .*file/openvino cannot be written \(Not a directory\)"):
        load(bright, tmp_path / "file")


def test_without_openvino_the_extra_is_named_and_auto_goes_on(
    bright: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "has_gpu", lambda: False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"openvino is not installed: pip install 'facesieve\[worker\]'"):
        load(bright, cache)
    assert load(bright, cache, "auto", "auto").engine == "tensorflow"


@pytest.mark.parametrize(
    ("engine", "precision", "message"),
    [
        ("abacus", "auto", "engine abacus: choose one of auto, openvino, tensorflow"),
        ("auto", "bf8", "precision bf8: choose one of auto, int8, bf16, float32"),
        ("tensorflow", "int8", "engine tensorflow has no int8"),
    ],
)
def test_an_engine_or_precision_that_does_not_exist_is_refused(engine: str, precision: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_engine(engine, precision)


def test_the_samples_are_four_of_the_example_faces_of_both_classes() -> None:
    files = sorted(SAMPLES.iterdir())
    assert [file.read_bytes() for file in files] == [(EXAMPLES / file.name).read_bytes() for file in files]
    assert {file.name.split("-")[0] for file in files} == {"generated", "real"}
    assert sample_pixels("card").shape == (4, 224, 224, 3)


class Limit:
    """A limit that is another one each time that a drift is compared with it."""

    def __init__(self, limits: Iterator[float]) -> None:
        self._limits = limits

    def __ge__(self, drift: float) -> bool:
        return drift <= next(self._limits)


def test_one_process_compiles_at_a_time(bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    compile_model, free = openvino.Core.compile_model, []
    converted = openvino_engine.converted_folder(read_manifest(bright), tmp_path)

    def compile_and_look(*arguments: object) -> object:
        other = os.open(converted, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(True)
        except BlockingIOError:
            free.append(False)
        finally:
            os.close(other)
        return compile_model(*arguments)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_and_look)
    load(bright, tmp_path).warm_up()

    assert free
    assert not any(free)
