"""The reference engine: TensorFlow, on a CPU or a GPU."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.manifest import Manifest
from model.network import load_network
from model.preprocess import SIDE, WHITE
from model.runtime import import_tensorflow


class TensorFlowEngine:
    """See ``model.predictor.Engine``."""

    name = "tensorflow"
    precision = "float32"

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._tf = import_tensorflow()
        _prepare_gpus(self._tf)
        self._network = load_network(folder, manifest)
        # Not a constant: TensorFlow would multiply with its reciprocal, which gives other bits for half of all values.
        self._white = self._tf.Variable(WHITE, trainable=False)
        # XLA stays off: it changes scores by as much as 1e-2 and compiles for minutes, once for each shape.
        self._forward = self._tf.function(
            self._score,
            input_signature=[self._tf.TensorSpec((None, SIDE, SIDE, 3), self._tf.uint8)],
            jit_compile=False,
        )

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
        return self._tf.cast(self._network.call(pixels), self._tf.float32)


def _prepare_gpus(tf: Any) -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # this process uses it already
            tf.config.experimental.set_memory_growth(gpu, True)
    # Or GPUs would multiply with 10 bits of mantissa: not the precision we record, nor the scores of a CPU worker.
    tf.config.experimental.enable_tensor_float_32_execution(False)
