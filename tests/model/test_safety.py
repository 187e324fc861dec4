"""A model file that would run code, or fill the disk, is refused before that happens."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from core.errors import UnsafeModelError
from core.settings import Settings
from model import safety
from model.importer import import_model
from tests.tiny import mean_of, small_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]


def save_module(path: Path, function: Callable[[Any], Any], **more: Any) -> Path:
    """Save a function of a float tensor (n, 224, 224, 3) as a SavedModel."""
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec((None, 224, 224, 3), tf.float32)])
    for name, value in more.items():
        setattr(module, name, value)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
    return path


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_lambda_layer_is_refused(suffix: str, settings: Settings, tmp_path: Path) -> None:
    model = small_model(lambda pixels: keras.layers.Lambda(lambda x: x * 1.0)(mean_of(pixels)))
    model.save(tmp_path / f"model{suffix}")

    with pytest.raises(UnsafeModelError, match="Lambda"):
        import_model(settings, tmp_path / f"model{suffix}", name="bad")

    assert not (settings.models_dir / "bad").exists()


def test_code_in_a_lambda_layer_of_keras_2_is_refused(settings: Settings, tmp_path: Path) -> None:
    import tf_keras

    pixels = tf_keras.layers.Input((224, 224, 3))
    mean = tf_keras.layers.GlobalAveragePooling2D()(pixels)
    tf_keras.Model(pixels, tf_keras.layers.Lambda(lambda x: x[:, :1])(mean)).save(tmp_path / "model.h5")

    with pytest.raises(UnsafeModelError, match="Lambda"):
        import_model(settings, tmp_path / "model.h5", name="bad")


def run_python(pixels: Any) -> Any:
    mean = tf.reduce_mean(pixels, axis=[1, 2])[:, :1]
    result = tf.py_function(lambda x: x, [mean], tf.float32)
    return tf.ensure_shape(result, (None, 1))


def read_a_file(pixels: Any) -> Any:
    content = tf.io.read_file("/etc/hostname")
    return tf.reduce_mean(pixels, axis=[1, 2])[:, :1] + 0.0 * tf.cast(tf.strings.length(content), tf.float32)


def write_a_file(pixels: Any) -> Any:
    with tf.control_dependencies([tf.io.write_file("/tmp/never-written", "x")]):
        return tf.reduce_mean(pixels, axis=[1, 2])[:, :1] + 0.0


def print_to_a_file(pixels: Any) -> Any:
    with tf.control_dependencies([tf.print("x", output_stream="file:///tmp/never-written")]):
        return tf.reduce_mean(pixels, axis=[1, 2])[:, :1] + 0.0


def write_a_file_when_dark(pixels: Any) -> Any:
    mean = tf.reduce_mean(pixels, axis=[1, 2])[:, :1]
    return tf.cond(tf.reduce_mean(mean) < 0.1, lambda: write_a_file(pixels), lambda: mean)


def save_a_checkpoint(pixels: Any) -> Any:
    save = tf.raw_ops.SaveV2(prefix="/tmp/never-written", tensor_names=["x"], shape_and_slices=[""], tensors=[1.0])
    with tf.control_dependencies([save]):
        return tf.reduce_mean(pixels, axis=[1, 2])[:, :1] + 0.0


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (run_python, "EagerPyFunc"),
        (read_a_file, "ReadFile"),
        (write_a_file, "WriteFile"),
        (write_a_file_when_dark, "WriteFile"),
        (print_to_a_file, "PrintV2"),
        (save_a_checkpoint, "SaveV2"),
    ],
)
def test_a_saved_model_that_does_more_than_compute_is_refused_before_it_is_loaded(
    function: Callable[[Any], Any],
    operation: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_module(tmp_path / "model", function)
    monkeypatch.setattr(tf.saved_model, "load", lambda *_: pytest.fail("was loaded"))

    with pytest.raises(UnsafeModelError, match=operation):
        import_model(settings, folder, name="bad")

    assert not (settings.models_dir / "bad").exists()


def test_a_saved_model_that_reads_a_table_from_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("a\nb\n")
    source = tf.lookup.TextFileInitializer(
        str(tmp_path / "words"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    table = tf.lookup.StaticHashTable(source, -1)

    def look_up(pixels: Any) -> Any:
        found = tf.cast(table.lookup(tf.constant("a")), tf.float32)
        return tf.reduce_mean(pixels, axis=[1, 2])[:, :1] + found

    with pytest.raises(UnsafeModelError, match="InitializeTableFromTextFile"):
        import_model(settings, save_module(tmp_path / "model", look_up, table=table), name="bad")


def test_a_zip_that_unpacks_to_too_much_is_refused(
    tiny: Any, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(2**20))
    monkeypatch.setattr(safety, "MAX_UNPACKED_BYTES", 2**20)

    with pytest.raises(UnsafeModelError, match="unpacks to"):
        import_model(settings, tmp_path / "model.keras", name="bad")
