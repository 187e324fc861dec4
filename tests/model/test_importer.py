"""Whatever people hold becomes an artifact with the same scores, or is refused with a reason."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import ModelBrokenError, ModelError, ModelNotFoundError, ModelShapeError, UsageError
from core.settings import Settings, load_settings
from model.artifact import verify
from model.importer import import_model, init_untrained
from model.network import load_keras
from model.predictor import load_predictor
from model.preprocess import scale
from model.resnet import PARAMETERS
from tests.tiny import build_tiny_network, make_tiny_artifact, mean_of, small_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]
TOLERANCE = 1e-6


def scores_of_artifact(settings: Settings, name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return load_predictor(settings.models_dir / name).predict(images)


def scores_of_network(network: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(network(scale(images), training=False).numpy())[:, 0]


@pytest.fixture(scope="module")
def legacy_network() -> Any:
    """A network of Keras 2, compiled as the published one is, with statistics that are not the initial ones."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    layers = tf_keras.layers
    pixels = layers.Input((224, 224, 3))
    x = layers.Conv2D(4, 7, strides=8, padding="same", name="conv")(pixels)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    shortcut = layers.Conv2D(8, 1, strides=2)(x)
    x = layers.Add()([layers.Conv2D(8, 3, strides=2, padding="same")(x), shortcut])
    x = layers.Dropout(0.5)(layers.Dense(8, activation="relu")(layers.GlobalAveragePooling2D()(x)))
    network = tf_keras.Model(pixels, layers.Dense(1, activation="sigmoid")(x))
    network.compile(tf_keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"])
    chance = np.random.default_rng(3)
    network.train_on_batch(chance.random((4, 224, 224, 3)).astype(np.float32), np.array([0, 1, 0, 1]))
    return network


@pytest.mark.parametrize("kind", [".h5", ".hdf5", "folder"])
def test_models_of_keras_2_keep_their_scores(
    kind: str, legacy_network: Any, images: NDArray[np.uint8], settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / ("model" if kind == "folder" else f"face_classification_model1{kind}")
    legacy_network.save(file, save_format="tf" if kind == "folder" else "h5")

    manifest = import_model(settings, file, name="legacy")

    assert manifest.format == ("saved_model" if kind == "folder" else "keras")
    assert manifest.parameters == legacy_network.count_params()
    assert manifest.architecture == "imported"
    assert file.name in manifest.source
    found = scores_of_artifact(settings, "legacy", images)
    np.testing.assert_allclose(found, scores_of_network(legacy_network, images), atol=TOLERANCE)


@pytest.mark.parametrize("kind", [".h5", ".keras", "folder"])
def test_models_of_keras_3_keep_their_scores(
    kind: str, tiny: Any, images: NDArray[np.uint8], settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / f"model{kind}"
    if kind == "folder":
        tiny.export(file, verbose=False)
    else:
        tiny.save(file)

    manifest = import_model(settings, file, name="third", preprocess="rgb-area", trained=False)

    assert (manifest.preprocess, manifest.trained) == ("rgb-area", False)
    assert manifest == verify(settings.models_dir / "third")
    found = scores_of_artifact(settings, "third", images)
    np.testing.assert_allclose(found, scores_of_network(tiny, images), atol=TOLERANCE)
    assert found.std() > 10 * TOLERANCE


def test_a_model_for_images_of_any_size_is_accepted(settings: Settings, tmp_path: Path) -> None:
    small_model(mean_of, (None, None, 3)).save(tmp_path / "any.keras")

    import_model(settings, tmp_path / "any.keras", name="any")

    assert verify(settings.models_dir / "any").trained


def test_importing_the_same_file_elsewhere_gives_the_same_model(tiny: Any, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model.h5")
    sites = [load_settings(data_dir=tmp_path / name) for name in ("here", "there")]

    here, there = (import_model(site, tmp_path / "model.h5", name="same") for site in sites)

    assert here.id == there.id


def test_the_same_seed_gives_the_same_file(settings: Settings) -> None:
    first = make_tiny_artifact(settings, "first", seed=5)
    again = make_tiny_artifact(settings, "again", seed=5)
    other = make_tiny_artifact(settings, "other", seed=6)

    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_the_untrained_model_is_the_cards_network_and_says_that_it_is_untrained(settings: Settings) -> None:
    manifest = init_untrained(settings)

    assert (manifest.name, manifest.trained, manifest.architecture) == ("untrained", False, "card-resnet")
    assert (manifest.parameters, manifest.preprocess) == (PARAMETERS, "card")
    assert load_keras(settings.models_dir / "untrained" / "model.keras").parameters == PARAMETERS
    with pytest.raises(UsageError, match="--overwrite"):
        init_untrained(settings)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (lambda: small_model(mean_of, (128, 128, 3)), r"\(None, 128, 128, 3\)"),
        (lambda: small_model(mean_of, (224, 224, 1)), r"\(None, 224, 224, 1\)"),
        (lambda: small_model(keras.layers.Dense(1), (9,)), r"\(None, 9\)"),
        (lambda: small_model(keras.layers.GlobalAveragePooling2D()), r"\(None, 3\)"),
        (lambda: small_model(keras.layers.Conv2D(1, 1)), r"\(None, 224, 224, 1\)"),
        (lambda: small_model(lambda x: keras.layers.Rescaling(9.0)(mean_of(x))), "4.5"),
        (lambda: small_model(lambda x: keras.layers.Rescaling(float("nan"))(mean_of(x))), "nan"),
        (lambda: small_model(lambda x: [mean_of(x), mean_of(x)]), "2 outputs"),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_another_input_or_output_is_refused_and_named(
    model: Callable[[], Any], found: str, is_folder: bool, settings: Settings, tmp_path: Path
) -> None:
    network = model()
    for weights in network.weights:
        weights.assign(np.zeros(weights.shape, np.float32))
    file = tmp_path / ("model" if is_folder else "model.keras")
    if is_folder:
        network.export(file, verbose=False)
    else:
        network.save(file)

    with pytest.raises(ModelShapeError, match=found):
        import_model(settings, file, name="bad")


@pytest.mark.parametrize(
    ("name", "content", "error", "match"),
    [
        ("model.h5", pickle.dumps([1, 2]), ModelBrokenError, "SavedModel folder"),
        ("model.keras", pickle.dumps([1, 2]), ModelBrokenError, "SavedModel folder"),
        ("model.pkl", pickle.dumps([1, 2]), UsageError, "SavedModel folder"),
        ("model.pt", b"PK\x03\x04", UsageError, "SavedModel folder"),
        ("model.keras", b"PK\x03\x04 and no more", ModelBrokenError, "not a .keras file"),
        ("model.h5", b"\x89HDF\r\n\x1a\n and no more", ModelBrokenError, "does not load"),
        ("model.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ModelBrokenError, "git lfs pull"),
        ("model.h5", b"", ModelBrokenError, "SavedModel folder"),
        ("saved_model.pb", b"", UsageError, "SavedModel folder"),
    ],
)
def test_files_of_another_kind_are_refused(
    name: str, content: bytes, error: type[ModelError], match: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(error, match=match):
        import_model(settings, tmp_path / name, name="bad")


@pytest.mark.parametrize("content", [None, b"", b"no protocol buffer"])
def test_folders_that_hold_no_saved_model_are_refused(
    content: bytes | None, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "saved_model.pb").write_bytes(content)

    with pytest.raises((ModelBrokenError, UsageError), match="model"):
        import_model(settings, folder, name="bad")


def test_a_file_that_does_not_exist_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"gone\.h5"):
        import_model(settings, tmp_path / "gone.h5", name="bad")


@pytest.mark.parametrize("name", ["", "Upper", "../up", "a/b", "-dash", "x" * 65, "späth"])
def test_a_name_that_is_none_is_refused_before_anything_is_read(name: str, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model name"):
        import_model(settings, tmp_path / "gone.h5", name=name)


def test_a_layer_that_is_not_part_of_keras_is_refused(settings: Settings, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("tests", "Mine")
    class Mine(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    small_model(lambda pixels: Mine()(mean_of(pixels))).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("tests>Mine")

    with pytest.raises(ModelBrokenError, match="Mine"):
        import_model(settings, tmp_path / "model.keras", name="bad")


def test_nothing_is_warned_of_when_an_old_model_is_imported(
    legacy_network: Any, settings: Settings, tmp_path: Path
) -> None:
    legacy_network.save(tmp_path / "model.h5")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_model(settings, tmp_path / "model.h5", name="legacy")

    assert [str(found.message) for found in caught if "__array__" not in str(found.message)] == []


def test_the_tiny_network_of_a_seed_does_not_depend_on_what_was_built_before() -> None:
    first, second = build_tiny_network(2), build_tiny_network(2)

    for one, other in zip(first.weights, second.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(one.numpy(), other.numpy())
