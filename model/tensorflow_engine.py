"""The reference engine: TensorFlow, on a CPU or a GPU."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from core.manifest import Manifest
from model.network import load_network
from model.parity import sample_pixels
from model.preprocess import SIDE, WHITE, scale
from model.runtime import import_keras, import_tensorflow

#: Of NVIDIA's GPUs, from Ampere on (CUDA C++ Programming Guide, Compute Capabilities).
_BF16_CAPABILITY = (8, 0)


class TensorFlowEngine:
    """See ``model.predictor.Engine``."""

    name = "tensorflow"
    batch_size = 32

    def __init__(self, folder: Path, manifest: Manifest, *, precision: str = "float32", threads: int = 0) -> None:
        """Load the network.

        Args:
            folder: of the artifact.
            manifest: of the artifact.
            precision: ``float32``, the reference, or ``bf16``, which GPUs compute several times as fast.
            threads: that a CPU computes with; 0 means one for each core. The first engine of a process decides.

        Raises:
            ModelError: TensorFlow is not installed, or the network does not load; bf16 was asked for of a SavedModel.
        """
        self._tf = import_tensorflow()
        with suppress(RuntimeError):  # this process has computed before
            self._tf.config.threading.set_intra_op_parallelism_threads(threads)
        _prepare_gpus(self._tf)
        self._network = load_network(folder, manifest)
        self._call = self._network.call
        self.precision = precision
        if precision == "bf16":
            self._call = _in_bf16(self._network.root, manifest)
        # Not a constant: TensorFlow would multiply with its reciprocal, which gives other bits for half of all values.
        self._white = self._tf.Variable(WHITE, trainable=False)
        # XLA stays off: it changes scores by as much as 1e-2 and compiles for minutes, once for each shape.
        self._forward = self._tf.function(
            self._score,
            input_signature=[self._tf.TensorSpec((None, SIDE, SIDE, 3), self._tf.uint8)],
            jit_compile=False,
        )
        self.drift = 0.0
        if precision != "float32":
            pixels = sample_pixels(manifest.preprocess)
            expected = np.asarray(self._network.call(scale(pixels)), np.float32)
            self.drift = float(np.abs(self.run(pixels) - expected).max())

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's output, (n, 1), for uint8 images of shape (n, 224, 224, 3).

        Raises:
            MemoryError: the batch does not fit into memory.
        """
        try:
            scores: NDArray[np.float32] = self._forward(batch).numpy()
        except self._tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"a batch of {len(batch)} images does not fit") from error
        return scores

    def _score(self, batch: Any) -> Any:
        """Scale inside the graph, see ``model.preprocess.scale``: the pixels travel to the device as bytes."""
        pixels = self._tf.cast(batch, self._tf.float32) / self._white
        return self._tf.cast(self._call(pixels), self._tf.float32)


def preferred_precision() -> str:
    """Return ``bf16`` if there is a GPU and each multiplies in it, else ``float32``.

    Raises:
        ModelError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    found = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return "bf16" if found and min(found) >= _BF16_CAPABILITY else "float32"


def _in_bf16(model: Any, manifest: Manifest) -> Callable[[Any], Any]:
    """Return a network that computes in bf16 with the weights in float32; its last layer gives scores in float32.

    Raises:
        ModelError: it is a SavedModel, whose operations are fixed.
    """
    if manifest.format != "keras":
        raise ModelError(f"model {manifest.name} is a SavedModel, and runs in float32 only")
    keras = import_keras()

    def clone(layer: Any) -> Any:
        dtype = "float32" if layer is model.layers[-1] else "mixed_bfloat16"
        return layer.__class__.from_config(layer.get_config() | {"dtype": dtype})

    cloned = keras.models.clone_model(model, clone_function=clone, recursive=True)
    cloned.set_weights(model.get_weights())
    return partial(cloned, training=False)


def _prepare_gpus(tf: Any) -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # this process uses it already
            tf.config.experimental.set_memory_growth(gpu, True)
    # Or GPUs would multiply with 10 bits of mantissa: not the precision we record, nor the scores of a CPU worker.
    tf.config.experimental.enable_tensor_float_32_execution(False)
