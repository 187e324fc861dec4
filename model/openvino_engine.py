"""The engine for CPUs: OpenVINO, in bf16 where the CPU has units for it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError
from core.manifest import Manifest
from model.export import export
from model.parity import reference_scores, sample_pixels
from model.preprocess import SIDE, WHITE
from model.runtime import import_openvino

#: What OpenVINO calls the precisions.
_TYPES = {"float32": "f32", "bf16": "bf16"}
#: What is kept for each precision; `model quantise` makes the one for int8.
GRAPHS = {"float32": "network.xml", "bf16": "network.xml", "int8": "int8.xml"}
_REFERENCE = "reference.json"


class OpenVinoEngine:
    """See ``model.predictor.Engine``.

    Attributes:
        drift: largest difference of a score from the reference's, over ``model.parity.SAMPLES``.
    """

    name = "openvino"
    batch_size = 8  # what it computes with stays in a core's cache; batches of 32 are a sixth slower

    def __init__(self, folder: Path, manifest: Manifest, *, precision: str, cache: Path, threads: int = 0) -> None:
        """Convert the network, or take it from the cache; after the first time that needs no TensorFlow.

        Args:
            folder: of the artifact.
            manifest: of the artifact.
            precision: ``float32``, ``bf16`` or ``int8``.
            cache: folder of converted networks; is made.
            threads: to compute with; 0 means one for each core.

        Raises:
            ModelError: OpenVINO is not installed, cannot convert the network, or the cache cannot be written; int8 was
                asked for, and `model quantise` has not been run.
        """
        self._openvino = import_openvino()
        self._name = manifest.name
        self._converted = _convert(folder, manifest, converted_folder(manifest, cache))
        self._graph = self._converted / GRAPHS[precision]
        if not self._graph.exists():
            raise ModelError(f"{manifest.name} is not in int8 yet: run `model quantise {manifest.name} DATA`")
        self._requests: dict[int, Any] = {}
        self.precision = precision
        self._options = {
            # Of an int8 network, what is left in floating point.
            "INFERENCE_PRECISION_HINT": _TYPES[preferred_precision() if precision == "int8" else precision],
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # or two processes would take the same core
            "CACHE_DIR": str(self._converted),  # of compiled networks
        }
        expected = np.array(json.loads((self._converted / _REFERENCE).read_bytes()), np.float32)
        pixels = sample_pixels(manifest.preprocess)
        # In pieces of a size that is needed anyway: each size is compiled by itself.
        scores = np.concatenate([self.run(pixels[i : i + 2]) for i in range(0, len(pixels), 2)])
        self.drift = float(np.abs(scores[:, 0] - expected).max())

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's output, (n, 1), for uint8 images of shape (n, 224, 224, 3).

        Raises:
            ModelError: OpenVINO does not run the network.
        """
        size = len(batch)
        if size not in self._requests:
            self._requests[size] = self._compile(size)
        # The array is shared with OpenVINO while it runs, and its output is the request's own: hence the copy.
        self._requests[size].infer([np.ascontiguousarray(batch)], share_inputs=True)
        scores: NDArray[np.float32] = self._requests[size].get_output_tensor(0).data.copy()
        return scores

    def _compile(self, size: int) -> Any:
        """Return a request for batches of one size: a network of fixed shape is up to a fifth faster than of any."""
        try:
            core = self._openvino.Core()
            network = core.read_model(self._graph)
            network.reshape([size, SIDE, SIDE, 3])
            with _alone(self._converted):
                compiled = core.compile_model(_scaled(self._openvino, network), "CPU", self._options)
            return compiled.create_infer_request()
        except RuntimeError as error:  # what OpenVINO raises, whatever it is
            raise ModelError(f"OpenVINO does not run {self._name}: {str(error).splitlines()[0][:200]}") from error


def converted_folder(manifest: Manifest, cache: Path) -> Path:
    """Return where the networks that were converted from an artifact are kept."""
    return cache / "openvino" / f"{manifest.id}-{version('openvino')}"


def preferred_precision() -> str:
    """Return ``bf16`` if this CPU multiplies in it, else ``float32``.

    Raises:
        ModelError: OpenVINO is not installed.
    """
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "float32"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for a folder of compiled networks.

    OpenVINO maps what it finds there into memory even while another process writes it; it fails then, or gets SIGBUS.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems of networks have no such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _scaled(openvino: Any, network: Any) -> Any:
    """Let the network take pixels as bytes, and divide them itself, see ``model.preprocess.scale``."""
    steps = openvino.preprocess.PrePostProcessor(network)
    pixels = steps.input()
    pixels.tensor().set_element_type(openvino.Type.u8)
    pixels.preprocess().convert_element_type(openvino.Type.f32).scale(WHITE)
    return steps.build()


def _convert(folder: Path, manifest: Manifest, target: Path) -> Path:
    """Make the folder of a converted network, as a whole or not at all, unless it is there."""
    if (target / _REFERENCE).exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
            made = Path(scratch, "made")
            made.mkdir()
            export(folder, "openvino", made / GRAPHS["float32"])
            scores = reference_scores(folder, manifest, sample_pixels(manifest.preprocess))
            (made / _REFERENCE).write_text(json.dumps(scores.tolist()))
            made.rename(target)
    except OSError as error:
        if (target / _REFERENCE).exists():  # another worker was faster
            return target
        raise ModelError(
            f"cache {target.parent} cannot be written ({error.strerror}): see FACESIEVE_DATA_DIR"
        ) from error
    return target
