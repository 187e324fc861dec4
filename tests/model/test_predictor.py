"""As many scores as images, whatever the batches look like inside."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from core.errors import ModelBrokenError, ModelError, ModelNotFoundError, UsageError
from core.manifest import read_manifest
from core.settings import Settings, load_settings
from model.importer import import_model
from model.network import load_network
from model.predictor import ENGINES, Predictor, check_engine, check_parity, load_predictor
from model.preprocess import scale
from model.tensorflow_engine import TensorFlowEngine, _in_bf16, preferred_precision
from tests import drawn

pytestmark = pytest.mark.tensorflow
TOLERANCE = 1e-6
BATCH_SIZE = 8


@pytest.fixture(scope="module")
def predictor(tiny_folder: Path) -> Predictor:
    return load_predictor(tiny_folder, batch_size=BATCH_SIZE)


class FakeEngine:
    """Gives each image the mean of its pixels, and records the sizes of its batches."""

    name = "fake"
    precision = "float64"
    drift = 0.0

    def __init__(self, *, fits: int = 1000, faulty: Any = None) -> None:
        self.fits = fits
        self.faulty = faulty
        self.sizes: list[int] = []

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        if len(batch) > self.fits:
            raise MemoryError
        means = (batch.mean((1, 2, 3)) / 255).astype(np.float32)[:, None]
        return means if self.faulty is None else self.faulty(means)


def with_fake(folder: Path, engine: FakeEngine, batch_size: int = BATCH_SIZE) -> Predictor:
    return Predictor(folder, read_manifest(folder), engine, batch_size=batch_size)


def test_a_predictor_says_what_it_is(predictor: Predictor, tiny_folder: Path) -> None:
    assert predictor.manifest == read_manifest(tiny_folder)
    assert (predictor.engine, predictor.precision, predictor.batch_size) == ("tensorflow", "float32", BATCH_SIZE)


@pytest.mark.parametrize("count", [1, 2, 3, 7, BATCH_SIZE, BATCH_SIZE + 1, BATCH_SIZE + 5, 40])
def test_padding_and_splitting_do_not_change_scores(
    count: int, predictor: Predictor, tiny: Any, images: NDArray[np.uint8]
) -> None:
    scores = predictor.predict(images[:count])

    assert scores.dtype == np.float32
    assert scores.shape == (count,)
    alone = [float(predictor.predict(image[None])[0]) for image in images[:count]]
    np.testing.assert_allclose(scores, alone, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["keras", "folder"])
def test_flip_scores_the_mean_of_the_image_and_its_mirror_image(
    kind: str, tiny: Any, images: NDArray[np.uint8], settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / ("model" if kind == "folder" else "model.keras")
    if kind == "folder":
        tiny.export(file, verbose=False)
    else:
        tiny.save(file)
    plain, flipped = (import_model(settings, file, name="made", flip=flip, overwrite=True) for flip in (False, True))
    predictor = load_predictor(settings.models_dir / "made", batch_size=BATCH_SIZE)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])

    found = predictor.predict(images)

    alone, other = (tiny(scale(pixels), training=False).numpy()[:, 0] for pixels in (images, mirrored))
    np.testing.assert_allclose(found, (alone + other) / 2, atol=TOLERANCE)
    assert np.abs(found - alone).max() > 10 * TOLERANCE
    np.testing.assert_allclose(predictor.predict(mirrored), found, atol=TOLERANCE)
    assert check_parity(predictor, images) < TOLERANCE
    assert flipped.sha256 == plain.sha256
    assert flipped.id != plain.id


def test_a_flipped_keras_network_is_one_model_of_the_same_weights(tiny: Any, tiny_folder: Path) -> None:
    manifest = read_manifest(tiny_folder).model_copy(update={"flip": True})

    network = load_network(tiny_folder, manifest)

    assert isinstance(network.root, type(tiny))
    assert (network.input_shape, network.parameters) == (tiny.input_shape, tiny.count_params())


def test_no_images_give_no_scores(predictor: Predictor, images: NDArray[np.uint8]) -> None:
    assert predictor.predict(images[:0]).shape == (0,)


def test_a_predictor_agrees_with_its_network_called_directly(predictor: Predictor, images: NDArray[np.uint8]) -> None:
    assert check_parity(predictor, images) < TOLERANCE


def test_parity_notices_an_engine_that_computes_something_else(tiny_folder: Path, images: NDArray[np.uint8]) -> None:
    predictor = with_fake(tiny_folder, FakeEngine())

    expected = np.abs(predictor.predict(images) - load_predictor(tiny_folder).predict(images)).max()

    assert check_parity(predictor, images) == pytest.approx(expected, abs=TOLERANCE)


def test_only_two_sizes_of_batches_are_run_and_warm_up_runs_both(tiny_folder: Path, images: NDArray[np.uint8]) -> None:
    engine = FakeEngine()
    predictor = with_fake(tiny_folder, engine)

    predictor.warm_up()
    assert engine.sizes == [BATCH_SIZE, BATCH_SIZE // 4]
    for count in range(1, 20):
        predictor.predict(images[:count])

    assert set(engine.sizes) == {BATCH_SIZE, BATCH_SIZE // 4}


def test_scores_come_in_the_order_of_the_images(tiny_folder: Path) -> None:
    ramp = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 224, 224, 3), np.uint8)

    scores = with_fake(tiny_folder, FakeEngine()).predict(ramp)

    np.testing.assert_allclose(scores, np.arange(40) / 255, atol=TOLERANCE)


@pytest.mark.parametrize(("fits", "size"), [(1, 1), (3, 2), (4, 4), (7, 4), (8, 8)])
def test_out_of_memory_halves_the_batches_for_good_and_loses_no_image(
    fits: int, size: int, tiny_folder: Path, images: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(fits=fits)
    predictor = with_fake(tiny_folder, engine)

    with caplog.at_level(logging.WARNING, "facesieve"):
        scores = predictor.predict(images[:21])

    np.testing.assert_array_equal(scores, with_fake(tiny_folder, FakeEngine()).predict(images[:21]))
    assert predictor.batch_size == size
    assert ("halved" in caplog.text) == (size < BATCH_SIZE)
    engine.sizes.clear()
    predictor.predict(images[:21])
    assert max(engine.sizes) == size


def test_memory_for_not_even_one_image_is_an_error(tiny_folder: Path, images: NDArray[np.uint8]) -> None:
    with pytest.raises(ModelError, match="out of memory"):
        with_fake(tiny_folder, FakeEngine(fits=0)).predict(images[:2])


def test_tensorflow_running_out_of_memory_halves_the_batches(
    tiny_folder: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TensorFlowEngine(tiny_folder, read_manifest(tiny_folder))
    predictor = Predictor(tiny_folder, read_manifest(tiny_folder), engine, batch_size=BATCH_SIZE)
    expected = predictor.predict(images)
    forward = engine._forward

    def small_device(batch: NDArray[np.uint8]) -> Any:
        if len(batch) > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return forward(batch)

    monkeypatch.setattr(engine, "_forward", small_device)
    scores = predictor.predict(images)

    np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    assert predictor.batch_size == 2


@pytest.mark.parametrize(
    "faulty",
    [
        lambda scores: scores * np.nan,
        lambda scores: scores + 1,
        lambda scores: scores - 1,
        lambda scores: scores[:-1],
        lambda scores: np.hstack([scores, scores]),
        lambda scores: scores[:, 0],
    ],
    ids=["nan", "above", "below", "fewer", "two", "flat"],
)
def test_anything_but_one_probability_an_image_is_an_error(
    faulty: Any, tiny_folder: Path, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(ModelBrokenError, match="model tiny gave"):
        with_fake(tiny_folder, FakeEngine(faulty=faulty)).predict(images[:3])


def test_one_trace_serves_all_sizes_of_batches(predictor: Predictor, images: NDArray[np.uint8]) -> None:
    for count in (1, 2, 5, 8, 13):
        predictor.predict(images[:count])

    assert predictor._engine._forward.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


def test_scaling_in_the_graph_gives_the_cards_bits(tiny_folder: Path) -> None:
    engine = TensorFlowEngine(tiny_folder, read_manifest(tiny_folder))
    values = np.resize(np.arange(256, dtype=np.uint8), (1, 224, 224, 3))
    seen = []
    engine._call = lambda pixels: seen.append(pixels) or pixels

    scaled = tf.function(engine._score, jit_compile=False)(tf.constant(values)).numpy()

    assert len(seen) == 1
    np.testing.assert_array_equal(scaled, (values / 255.0).astype(np.float32))


def test_bf16_changes_scores_a_little_and_says_so(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    drawn.make_bright_artifact(settings, slope=10.0)
    folder = settings.models_dir / "bright"
    batch = np.linspace(60, 195, 8).astype(np.uint8)[:, None, None, None] + np.zeros((8, 224, 224, 3), np.uint8)

    rough, exact = (load_predictor(folder, precision=precision) for precision in ("bf16", "float32"))

    assert (rough.precision, exact.precision) == ("bf16", "float32")
    assert 0 < np.abs(rough.predict(batch) - exact.predict(batch)).max() < 0.05
    assert np.ptp(exact.predict(batch)) > 0.5


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [([], "float32"), ([(7, 5)], "float32"), ([(8, 0), (9, 0)], "bf16"), ([(8, 0), (7, 0)], "float32")],
)
def test_tensorflow_prefers_bf16_where_every_gpu_multiplies_in_it(
    capabilities: list[tuple[int, int]], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: capabilities)
    details = lambda gpu: {"compute_capability": gpu}  # noqa: E731
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
    assert preferred_precision() == precision


def test_a_saved_model_is_refused_in_bf16(tiny_folder: Path) -> None:
    manifest = read_manifest(tiny_folder).model_copy(update={"format": "saved_model"})
    with pytest.raises(ModelError, match="is a SavedModel, and runs in float32 only"):
        _in_bf16(None, manifest)


def test_an_engine_that_does_not_exist_is_named_with_the_choices(tiny_folder: Path) -> None:
    with pytest.raises(UsageError, match="engine abacus: choose one of auto, openvino, tensorflow"):
        load_predictor(tiny_folder, engine="abacus")
    for name in ENGINES:
        check_engine(name)


def test_a_changed_artifact_is_not_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    (folder / "model.keras").write_bytes((folder / "model.keras").read_bytes()[:1000])

    with pytest.raises(ModelBrokenError, match="sha256"):
        load_predictor(folder)


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="nothing"):
        load_predictor(tmp_path / "nothing")
