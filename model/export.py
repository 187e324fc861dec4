"""Write the network of an artifact for other runtimes. Needs TensorFlow."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

from core.errors import FacesieveError, ModelError, UsageError
from core.manifest import Manifest
from model.artifact import verify
from model.network import load_network
from model.preprocess import SIDE
from model.runtime import import_openvino, import_tensorflow, needs_extra

Format = Literal["keras", "onnx", "openvino"]
#: How the files of each format end; the first is the one that is named. (OpenVINO keeps weights beside the graph.)
SUFFIXES: dict[Format, tuple[str, ...]] = {"keras": (".keras",), "onnx": (".onnx",), "openvino": (".xml", ".bin")}


def export(folder: Path, kind: Format, out: Path, *, overwrite: bool = False) -> Manifest:
    """Write the network of an artifact to a file that is either complete or not there.

    The network maps ``pixels``, float32 in [0, 1] of shape (n, 224, 224, 3), to ``p_real``, float32 of shape (n, 1); if
    the manifest says ``flip``, it averages over the mirror image itself. Preparing the pixels is up to the caller.

    Args:
        folder: of the artifact.
        kind: format of the file.
        out: path of the file, ending as the format wants it. OpenVINO's weights go beside it, into a ``.bin`` file.
        overwrite: whether to replace the file.

    Returns:
        The manifest of the artifact.

    Raises:
        UsageError: the path does not end as it should, exists, or cannot be written; there is no Keras file of a
            SavedModel.
        ModelError: the artifact is missing, changed or broken; the format's package is not installed, or fails.
    """
    files = _check_out(kind, out, overwrite=overwrite)
    manifest = verify(folder)
    if kind == "keras" and manifest.format != "keras":
        raise UsageError(f"model {manifest.name} is a SavedModel, and becomes no Keras file: choose onnx or openvino")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            _WRITERS[kind](folder, manifest, Path(scratch, out.name))
            for file in files:
                Path(scratch, file.name).replace(file)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from error
    except FacesieveError:
        raise
    except Exception as error:  # each converter has its own for an operation that it does not know
        raise ModelError(f"model {manifest.name} does not become {kind}: {str(error)[:200]}") from error
    return manifest


def _check_out(kind: Format, out: Path, *, overwrite: bool) -> list[Path]:
    """Return the files that are to be written."""
    suffix = SUFFIXES[kind][0]
    if out.suffix != suffix:
        raise UsageError(f"--out {out} does not end in {suffix}, as the file of format {kind} must")
    files = [out.with_suffix(other) for other in SUFFIXES[kind]]
    for file in files:
        if file.is_dir() or (file.exists() and not overwrite):
            raise UsageError(f"{file} exists: choose another --out, or --overwrite it")
    return files


def _write_keras(folder: Path, manifest: Manifest, out: Path) -> None:
    if manifest.flip:
        load_network(folder, manifest).root.save(out)
    else:
        copyfile(folder / manifest.file, out)


def _write_onnx(folder: Path, manifest: Manifest, out: Path) -> None:
    import_tensorflow()  # quietly, before tf2onnx does
    with needs_extra("export"):
        import onnx
        import tf2onnx
    forward = _as_function(folder, manifest)
    tf2onnx.convert.from_function(forward, forward.input_signature, output_path=str(out))
    onnx.checker.check_model(out)  # what it does not know, tf2onnx writes as it is, and only logs


def _write_openvino(folder: Path, manifest: Manifest, out: Path) -> None:
    openvino = import_openvino()
    forward = _as_function(folder, manifest)  # TensorFlow drops a SavedModel's variables when nothing holds them
    openvino.save_model(openvino.convert_model(forward.get_concrete_function()), out, compress_to_fp16=False)


_WRITERS: dict[Format, Callable[[Path, Manifest, Path], None]] = {
    "keras": _write_keras,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}


def _as_function(folder: Path, manifest: Manifest) -> Any:
    """Return a network as a ``tf.function``, which Keras models and SavedModels alike become."""
    tf = import_tensorflow()
    network = load_network(folder, manifest)

    def forward(pixels: Any) -> dict[str, Any]:
        return {"p_real": tf.cast(network.call(pixels), tf.float32)}

    pixels = tf.TensorSpec((None, SIDE, SIDE, 3), tf.float32, name="pixels")
    return tf.function(forward, input_signature=[pixels], autograph=False)
