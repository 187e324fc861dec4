"""Load the network of an artifact, or of a file that is to become one. Needs TensorFlow."""

from collections.abc import Callable, Sized
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from core.errors import ModelBrokenError, ModelShapeError, UnsafeModelError
from core.manifest import Manifest
from model.runtime import import_keras, import_tensorflow
from model.safety import check_keras_zip, check_saved_model


@dataclass(frozen=True)
class Network:
    """A loaded network.

    Attributes:
        call: runs it for inference: float32 tensor in [0, 1] of shape (n, 224, 224, 3) to a tensor of shape (n, 1).
        input_shape: as it was declared, None for what may vary; None as a whole if nothing was declared.
        parameters: number of weights, trainable or not.
        root: the ``keras.Model`` that ``call`` runs, or the loaded SavedModel, whose variables TensorFlow drops when
            nothing holds it.
    """

    call: Callable[[Any], Any]
    input_shape: tuple[int | None, ...] | None
    parameters: int
    root: Any


def load_network(folder: Path, manifest: Manifest) -> Network:
    """Load the network of an artifact; one of a manifest with ``flip`` averages over the mirror image itself.

    Raises:
        ModelError: as ``load_keras`` and ``load_saved_model``.
    """
    if manifest.format == "keras":
        network = load_keras(folder / manifest.file)
        return _of_keras(_flip_keras(network.root)) if manifest.flip else network
    network = load_saved_model(folder / manifest.file)
    return replace(network, call=_flip_call(network.call)) if manifest.flip else network


def load_keras(path: Path) -> Network:
    """Load a ``.keras`` or HDF5 file.

    Raises:
        ModelBrokenError: it does not load.
        ModelShapeError: it has not one input and one output.
        UnsafeModelError: loading it would run code from the file.
    """
    if path.suffix == ".keras":
        check_keras_zip(path)
    keras = import_keras()
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and h5py raise errors of a dozen kinds for a bad file
        reason = _reason(error)
        if "safe_mode" in str(error):
            raise UnsafeModelError(f"{path} holds code: {reason}; save it without Lambda layers") from error
        raise ModelBrokenError(f"{path} does not load: {reason}") from error
    _check_counts(path, getattr(model, "inputs", None) or (), getattr(model, "outputs", None) or ())
    # Made anew, since older files wrap the one input in a list, and Keras then warns at each call.
    return _of_keras(keras.Model(model.inputs[0], model.outputs[0], name=model.name))


def load_saved_model(path: Path) -> Network:
    """Load the serving function of a TensorFlow SavedModel folder.

    Raises:
        ModelBrokenError: it does not load.
        ModelShapeError: it has no serving function of one input and one output.
        UnsafeModelError: its graph reads or writes files or runs Python.
    """
    check_saved_model(path)
    try:
        root = import_tensorflow().saved_model.load(str(path))
    except Exception as error:  # as with Keras
        raise ModelBrokenError(f"{path} does not load: {_reason(error)}") from error
    names = [name for name in ("serving_default", "serve") if name in root.signatures]
    if not names:
        found = ", ".join(root.signatures) or "none"
        raise ModelShapeError(f"{path} has no endpoint serving_default (found: {found}): use `model.export(...)`")
    serve = root.signatures[names[0]]
    inputs, outputs = serve.structured_input_signature[1], serve.structured_outputs
    _check_counts(path, inputs, outputs)
    ((input_name, spec),) = inputs.items()
    (output_name,) = outputs
    return Network(
        call=lambda pixels: serve(**{input_name: pixels})[output_name],
        input_shape=None if spec.shape.rank is None else tuple(spec.shape),
        parameters=sum(prod(variable.shape) for variable in serve.variables),
        root=root,
    )


def _of_keras(model: Any) -> Network:
    return Network(
        call=lambda pixels: model(pixels, training=False),
        input_shape=model.input_shape,
        parameters=model.count_params(),
        root=model,
    )


def _flip_keras(model: Any) -> Any:
    """Return a ``keras.Model``, so that it can be exported: the mean of one for an image and its mirror image."""
    keras = import_keras()
    pixels = keras.Input(batch_shape=model.input_shape, name="pixels")
    inner = keras.Model(model.inputs[0], model.outputs[0], name="network")  # its own name may be one that is used here
    p_real = keras.layers.Average(name="mean")([inner(pixels), inner(keras.ops.flip(pixels, axis=2))])
    return keras.Model(pixels, p_real, name="flip")


def _flip_call(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    tf = import_tensorflow()
    return lambda pixels: (call(pixels) + call(tf.reverse(pixels, [2]))) / 2


def _check_counts(path: Path, inputs: Sized, outputs: Sized) -> None:
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelShapeError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, it must have one of each")


def _reason(error: Exception) -> str:
    """Shorten an error to one line; Keras puts configurations of a thousand lines around the cause."""
    cause = str(error).rpartition("Exception encountered: ")[2].strip() or type(error).__name__
    return cause.splitlines()[0].split(". ")[0].rstrip(".")[:200]
