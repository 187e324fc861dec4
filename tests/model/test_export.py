"""What is exported computes the same scores elsewhere."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from typer.testing import CliRunner

from core.errors import ModelBrokenError, ModelError, UsageError
from core.manifest import Manifest
from core.settings import Settings
from model.artifact import write_artifact
from model.cli import app
from model.ensemble import make_ensemble
from model.export import SUFFIXES, Format, export
from model.importer import import_model, save_network
from model.network import load_keras
from model.predictor import load_predictor
from model.preprocess import scale
from tests.tiny import build_tiny_network, make_tiny_artifact

pytestmark = pytest.mark.tensorflow
TOLERANCE = 1e-6


def run_keras(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(load_keras(path).call(pixels))


def run_onnx(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["p_real"], {"pixels": pixels})
    return np.asarray(scores)


def run_openvino(path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import openvino

    network = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(network({"pixels": pixels})["p_real"])


RUN: dict[Format, Callable[[Path, NDArray[np.float32]], NDArray[np.float32]]] = {
    "keras": run_keras,
    "onnx": run_onnx,
    "openvino": run_openvino,
}


def make_plain(settings: Settings, folder: Path) -> None:
    make_tiny_artifact(settings, "made", seed=4)


def make_flipped(settings: Settings, folder: Path) -> None:
    save_network(build_tiny_network(4), settings, name="made", trained=True, source="tests", flip=True)


def make_flipped_ensemble(settings: Settings, folder: Path) -> None:
    for seed in (1, 2):
        make_tiny_artifact(settings, f"m{seed}", seed=seed)
    make_ensemble(settings, ["m1", "m2"], name="made", flip=True)


def make_flipped_saved_model(settings: Settings, folder: Path) -> None:
    build_tiny_network(4).export(folder / "exported", verbose=False)
    import_model(settings, folder / "exported", name="made", flip=True)


def out_of(kind: Format, folder: Path) -> Path:
    return folder / f"out{SUFFIXES[kind][0]}"


@pytest.mark.parametrize("make", [make_plain, make_flipped, make_flipped_ensemble, make_flipped_saved_model])
@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_an_exported_network_gives_the_models_scores(
    kind: Format,
    make: Callable[[Settings, Path], None],
    images: NDArray[np.uint8],
    settings: Settings,
    tmp_path: Path,
) -> None:
    make(settings, tmp_path)
    out = out_of(kind, tmp_path)
    if kind == "keras" and make is make_flipped_saved_model:
        with pytest.raises(UsageError, match="becomes no Keras file"):
            export(settings.models_dir / "made", kind, out)
        return

    export(settings.models_dir / "made", kind, out)

    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {f"out{end}" for end in SUFFIXES[kind]}
    expected = load_predictor(settings.models_dir / "made").predict(images[:5])
    for count in (1, 5):
        found = RUN[kind](out, scale(images[:count]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count, None], atol=TOLERANCE)
    assert np.ptp(expected) > 10 * TOLERANCE


def test_the_keras_file_of_a_model_is_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    export(tiny_folder, "keras", tmp_path / "out.keras")

    assert (tmp_path / "out.keras").read_bytes() == (tiny_folder / "model.keras").read_bytes()


def test_a_keras_file_of_a_flipped_model_can_be_imported_again(
    settings: Settings, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    make_flipped(settings, tmp_path)
    export(settings.models_dir / "made", "keras", tmp_path / "out.keras")

    import_model(settings, tmp_path / "out.keras", name="again")

    made, again = (load_predictor(settings.models_dir / name).predict(images[:4]) for name in ("made", "again"))
    np.testing.assert_allclose(made, again, atol=TOLERANCE)


@pytest.mark.parametrize("kind", list(SUFFIXES))
def test_a_file_is_replaced_only_if_asked_for(kind: Format, tiny_folder: Path, tmp_path: Path) -> None:
    for end in SUFFIXES[kind]:
        (tmp_path / f"out{end}").write_text("mine")
        with pytest.raises(UsageError, match="--overwrite"):
            export(tiny_folder, kind, out_of(kind, tmp_path))
        assert (tmp_path / f"out{end}").read_text() == "mine"

    export(tiny_folder, kind, out_of(kind, tmp_path), overwrite=True)

    for end in SUFFIXES[kind]:
        assert (tmp_path / f"out{end}").read_bytes()[:4] != b"mine"


@pytest.mark.parametrize(("kind", "name"), [("keras", "out.h5"), ("onnx", "out"), ("openvino", "out.bin")])
def test_a_path_that_does_not_end_as_its_format_is_refused(
    kind: Format, name: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=rf"does not end in \{SUFFIXES[kind][0]}"):
        export(tiny_folder, kind, tmp_path / name)


def test_a_path_that_cannot_be_written_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.keras").mkdir()

    with pytest.raises(UsageError, match="No such file or directory"):
        export(tiny_folder, "keras", tmp_path / "nowhere" / "out.keras")
    with pytest.raises(UsageError, match="exists"):
        export(tiny_folder, "keras", tmp_path / "folder.keras", overwrite=True)


@pytest.mark.parametrize(
    ("kind", "package", "extra"), [("onnx", "tf2onnx", "export"), ("openvino", "openvino", "worker")]
)
def test_a_missing_package_is_named_with_the_extra_that_holds_it(
    kind: Format, package: str, extra: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ModelError, match=rf"{package} is not installed: pip install 'facesieve\[{extra}\]'"):
        export(tiny_folder, kind, out_of(kind, tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_a_network_that_a_format_cannot_hold_is_an_error_and_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    class Odd(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 224, 224, 3))])
        def __call__(self, pixels: Any) -> Any:
            mean = tf.reduce_mean(pixels, [1, 2, 3])[:, None]
            return tf.math.betainc(tf.ones_like(mean), tf.ones_like(mean), mean)

    odd = Odd()
    tf.saved_model.save(odd, tmp_path / "odd", signatures=odd.__call__)
    import_model(settings, tmp_path / "odd", name="odd")
    out = tmp_path / "out"
    out.mkdir()

    with pytest.raises(ModelError, match="model odd does not become openvino"):
        export(settings.models_dir / "odd", "openvino", out / "odd.xml")
    with pytest.raises(ModelError, match="model odd does not become onnx"):
        export(settings.models_dir / "odd", "onnx", out / "odd.onnx")

    assert list(out.iterdir()) == []


def test_weights_that_were_changed_are_not_exported(settings: Settings, tmp_path: Path) -> None:
    def make(folder: Path) -> Manifest:
        (folder / "model.keras").write_bytes(b"others")
        return manifest

    manifest = make_tiny_artifact(settings, "made")
    write_artifact(settings, "made", make, overwrite=True)

    with pytest.raises(ModelBrokenError, match="sha256"):
        export(settings.models_dir / "made", "keras", tmp_path / "out.keras")


def test_exporting_to_openvino_reports_nothing_to_its_makers(tiny_folder: Path, tmp_path: Path) -> None:
    export(tiny_folder, "openvino", tmp_path / "out.xml")

    assert sys.modules["openvino_telemetry"] is None


def test_the_command_exports(settings: Settings, tmp_path: Path) -> None:
    manifest = make_tiny_artifact(settings, "made")
    words = ["export", "made", "--format", "onnx", "--out", str(tmp_path / "made.onnx")]

    done = CliRunner().invoke(app, words)
    again = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    assert manifest.id[:12] in done.output
    assert (tmp_path / "made.onnx").stat().st_size > 4 * manifest.parameters
    assert isinstance(again.exception, UsageError)
    assert CliRunner().invoke(app, [*words, "--overwrite"]).exit_code == 0
