"""The three networks of MTCNN (Zhang et al. 2016, https://arxiv.org/abs/1604.02878), run by OpenVINO.

The weights come with the package ``mtcnn``. Its own code runs them with TensorFlow, in ten times the time. None of it
is imported: that would load TensorFlow, and take weights of the same names from the current directory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from model.runtime import import_openvino, needs_extra

PACKAGE = "mtcnn"
#: Of the files of mtcnn 1.0.0. They are pickled: what is unpickled is what was looked at, and what the boxes depend on.
_DIGESTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network takes.

    Attributes:
        name: of the file of its weights.
        batch: images at a time; the last ones are padded.
        side: of its images, in pixels; -1 means any, one size at a time.
    """

    name: str
    batch: int
    side: int


#: Proposes: looks at every square of 12 pixels of an image, two pixels apart.
PROPOSE = Shape("pnet", 1, -1)
#: Refines and refuses what was proposed, the second more strictly than the first.
REFINE = Shape("rnet", 32, 24)
OUTPUT = Shape("onet", 8, 48)


class Network:
    """One network, safe to use from many threads."""

    def __init__(self, shape: Shape, *, threads: int) -> None:
        """Load the weights and compile the network.

        Args:
            shape: which one.
            threads: that will use it at once; each computes by itself.

        Raises:
            ModelError: a package is not installed, or its weights are others.
        """
        openvino = import_openvino()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # boxes must not depend on the processor
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._shape = shape
        self._compiled = openvino.Core().compile_model(_build(openvino, shape), "CPU", options)
        self._mine = local()

    def run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Look at images.

        Args:
            images: RGB, of shape (n, height, width, 3).

        Returns:
            By how much the edges of the face are off those of each square that was looked at (left, top, right,
            bottom), in parts of its side: shape (n, 4), or (n, rows, columns, 4) if there are several in an image. And
            the probability that it is a face: the same shape without the last part.
        """
        offsets, scores = zip(*self._run_pieces(images), strict=True)
        return np.concatenate(offsets), np.concatenate(scores)

    def _run_pieces(self, images: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        for start in range(0, len(images), self._shape.batch):
            piece = images[start : start + self._shape.batch]
            padded = np.zeros((self._shape.batch, *images.shape[1:]), np.uint8)
            padded[: len(piece)] = piece
            self._mine.request.infer([padded], share_inputs=True)
            # The outputs are the request's own: hence the copies.
            offsets, faces = (self._mine.request.get_output_tensor(i).data[: len(piece)].copy() for i in (0, 1))
            yield offsets, faces[..., 1]


def is_installed() -> bool:
    """Tell whether the package with the weights is here."""
    return find_spec(PACKAGE) is not None


def _build(openvino: Any, shape: Shape) -> Any:
    """Put a network together as the paper has it, for pixels as bytes."""
    op = openvino.opset13
    weights = iter(_read_weights(shape.name))

    def bent(x: Any) -> Any:
        return op.prelu(x, op.constant(next(weights).ravel()))

    def convolved(x: Any) -> Any:
        kernel = np.ascontiguousarray(next(weights).transpose(3, 2, 0, 1))
        x = op.convolution(x, op.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
        return op.add(x, op.constant(next(weights).reshape(1, -1, 1, 1)))

    def pooled(x: Any, size: int, padding: str) -> Any:
        return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [size, size], auto_pad=padding).output(0)

    def dense(x: Any) -> Any:
        x = op.matmul(x, op.constant(next(weights)), False, False)
        return op.add(x, op.constant(next(weights).reshape(1, -1)))

    pixels = op.parameter([shape.batch, shape.side, shape.side, 3], np.uint8)
    x = op.subtract(op.convert(pixels, "f32"), np.float32(127.5))
    x = op.transpose(op.multiply(x, np.float32(1 / 128)), [0, 3, 1, 2])
    if shape is PROPOSE:
        x = pooled(bent(convolved(x)), 2, "same_upper")
        x = bent(convolved(bent(convolved(x))))
        offsets, faces = (op.transpose(convolved(x), [0, 2, 3, 1]) for _ in range(2))
        return openvino.Model([offsets, op.softmax(faces, -1)], [pixels], shape.name)
    x = pooled(bent(convolved(x)), 3, "same_upper")
    x = bent(convolved(pooled(bent(convolved(x)), 3, "valid")))
    if shape is OUTPUT:
        x = bent(convolved(pooled(x, 2, "same_upper")))
    x = bent(dense(op.reshape(op.transpose(x, [0, 3, 2, 1]), [0, -1], True)))  # trained with columns first
    offsets = dense(x)
    if shape is OUTPUT:
        dense(x)  # eyes, nose and mouth, which nobody asks for
    return openvino.Model([offsets, op.softmax(dense(x), -1)], [pixels], shape.name)


def _read_weights(name: str) -> list[NDArray[np.float32]]:
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(f"{PACKAGE}, which finds faces, is not installed: pip install 'facesieve[faces]'")
    with needs_extra("faces"):
        import joblib
    path = Path(found.origin).parent / "assets" / "weights" / f"{name}.lz4"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): pip install 'facesieve[faces]'") from error
    if sha256(content).hexdigest() != _DIGESTS[name]:
        raise ModelError(f"{path} is of another version than this program knows: pip install 'facesieve[faces]'")
    weights: list[NDArray[np.float32]] = joblib.load(BytesIO(content))
    return weights
