"""Model files that reach for other files, other modules or pickles are refused before anything is touched."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from core.errors import ModelBrokenError, ModelError, UnsafeModelError, UsageError
from core.settings import Settings
from model.artifact import verify
from model.importer import import_model
from model.predictor import load_predictor
from tests.tiny import make_tiny_artifact, mean_of, small_model

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]


class Bomb:
    """Something that leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.pt", "model.pth", "model.npz", "model.npy", "model.joblib", "model"]
)
def test_a_pickle_is_refused_by_its_name(name: str, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(UsageError, match="of no kind that can be imported"):
        import_model(settings, tmp_path / name, name="bad")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_pickle_under_another_name_is_refused_by_its_content(suffix: str, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    for content in (pickle.dumps(Bomb(tmp_path / "mark")), zipped({"data.pkl": pickle.dumps(Bomb(tmp_path / "mark"))})):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            import_model(settings, path, name="bad")
    assert not (tmp_path / "mark").exists()


def changed(config: Callable[[dict[str, Any]], None], path: Path) -> Path:
    """Save a small network whose configuration was changed by hand."""
    small_model(lambda pixels: keras.layers.Dense(1, activation="sigmoid", name="last")(mean_of(pixels))).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(parts["config.json"])
    config(next(layer for layer in content["config"]["layers"] if layer["config"]["name"] == "last"))
    parts["config.json"] = json.dumps(content).encode()
    path.write_bytes(zipped(parts))
    return path


def zipped(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("keras.utils", "get_file"), ("pathlib", "Path")],
)
def test_a_layer_that_is_a_function_of_another_module_is_refused(
    module: str, name: str, settings: Settings, tmp_path: Path
) -> None:
    def point(layer: dict[str, Any]) -> None:
        layer.update(module=module, class_name=name, registered_name=name, config={"name": "last"})

    with pytest.raises((ModelBrokenError, UnsafeModelError)):
        import_model(settings, changed(point, tmp_path / "model.keras"), name="bad")


def test_an_activation_that_is_a_function_of_another_module_is_refused(settings: Settings, tmp_path: Path) -> None:
    def point(layer: dict[str, Any]) -> None:
        layer["config"]["activation"] = {
            "module": "builtins", "class_name": "function", "config": "exec", "registered_name": "exec",
        }  # fmt: skip

    with pytest.raises((ModelBrokenError, UnsafeModelError)):
        import_model(settings, changed(point, tmp_path / "model.keras"), name="bad")


def test_a_layer_that_unpickles_is_refused(settings: Settings, tmp_path: Path) -> None:
    def point(layer: dict[str, Any]) -> None:
        layer.update(module="keras.layers", class_name="TorchModuleWrapper", registered_name=None)
        layer["config"] = {"name": "last", "module": pickle.dumps(Bomb(tmp_path / "mark")).decode("latin-1")}

    with pytest.raises((ModelBrokenError, UnsafeModelError)):
        import_model(settings, changed(point, tmp_path / "model.keras"), name="bad")
    assert not (tmp_path / "mark").exists()


def test_a_layer_that_reads_its_words_from_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("hush\nhush again\n")

    def point(layer: dict[str, Any]) -> None:
        layer.update(module="keras.layers", class_name="StringLookup", registered_name=None)
        layer["config"] = {"name": "last", "vocabulary": str(tmp_path / "secret.txt")}

    with pytest.raises((ModelBrokenError, UnsafeModelError)) as caught:
        import_model(settings, changed(point, tmp_path / "model.keras"), name="bad")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kind", ["link", "storage", "inside"])
def test_weights_that_stand_in_another_file_are_refused(
    kind: str, suffix: str, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    small_model(mean_of).save(path)
    np.full(3, 0.5, np.float32).tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = np.full((3, 1), 0.5, np.float32)
    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        (tmp_path / "weights.h5").write_bytes(parts["model.weights.h5"])
        redirect(tmp_path / "weights.h5", tmp_path, kind)
        path.write_bytes(zipped(parts | {"model.weights.h5": (tmp_path / "weights.h5").read_bytes()}))
    else:
        redirect(path, tmp_path, kind)

    if kind == "inside":  # changed in the same way, but for where the weights are
        assert import_model(settings, path, name="good").parameters == 4
        return
    with pytest.raises((ModelBrokenError, UnsafeModelError)):
        import_model(settings, path, name="bad")
    assert not (settings.models_dir / "bad").exists()


def redirect(path: Path, folder: Path, kind: str) -> None:
    """Let the kernel of the layer stand elsewhere."""
    with h5py.File(path, "a") as file:
        kernels: list[str] = []
        file.visititems(lambda name, item: kernels.append(name) if getattr(item, "shape", None) == (3, 1) else None)
        (kernel,) = kernels
        del file[kernel]
        if kind == "link":
            file[kernel] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")
        elif kind == "storage":
            file.create_dataset(kernel, (3, 1), np.float32, external=[(str(folder / "secret.bin"), 0, 12)])
        else:
            file.create_dataset(kernel, data=np.full((3, 1), 0.5, np.float32))


@pytest.mark.parametrize("change", ["weights", "manifest", "swapped"])
def test_weights_that_are_not_those_of_the_manifest_are_not_loaded(
    change: str, settings: Settings, tmp_path: Path
) -> None:
    make_tiny_artifact(settings, "tiny")
    folder = settings.models_dir / "tiny"
    verify(folder)
    if change == "weights":
        with (folder / "model.keras").open("ab") as file:
            file.write(b"\0")
    elif change == "manifest":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"sha256": "0" * 64}))
    else:
        make_tiny_artifact(settings, "other", seed=1)
        (folder / "model.keras").write_bytes((settings.models_dir / "other" / "model.keras").read_bytes())

    with pytest.raises(ModelBrokenError, match="was changed"):
        load_predictor(folder, engine="tensorflow", cache=settings.cache_dir)


@pytest.mark.parametrize("file", ["../../secret.keras", "/etc/passwd", "model.pkl"])
def test_a_manifest_cannot_lead_out_of_its_folder(file: str, settings: Settings) -> None:
    make_tiny_artifact(settings, "tiny")
    path = settings.models_dir / "tiny" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file": file}))
    with pytest.raises(ModelBrokenError):
        verify(settings.models_dir / "tiny")
