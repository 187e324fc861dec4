"""The engine for CPUs: OpenVINO, in bf16 where the CPU has units for it."""

import json
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
from model.preprocess import WHITE
from model.runtime import import_openvino

#: What OpenVINO calls the precisions.
_TYPES = {"float32": "f32", "bf16": "bf16"}
_GRAPH, _REFERENCE = "network.xml", "reference.json"


class OpenVinoEngine:
    """See ``model.predictor.Engine``.

    Attributes:
        drift: largest difference of a score from the reference's, over ``model.parity.SAMPLES``.
    """

    name = "openvino"

    def __init__(self, folder: Path, manifest: Manifest, *, precision: str, cache: Path) -> None:
        """Convert the network, or take it from the cache; after the first time that needs no TensorFlow.

        Args:
            folder: of the artifact.
            manifest: of the artifact.
            precision: ``float32`` or ``bf16``.
            cache: folder of converted networks; is made.

        Raises:
            ModelError: OpenVINO is not installed, cannot convert the network, or the cache cannot be written.
        """
        openvino = import_openvino()
        converted = _convert(folder, manifest, cache / "openvino" / f"{manifest.id}-{version('openvino')}")
        self.precision = precision
        try:
            core = openvino.Core()
            network = core.read_model(converted / _GRAPH)
            options = {
                "INFERENCE_PRECISION_HINT": _TYPES[precision],
                "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
                "CACHE_DIR": str(converted),  # of the compiled network
            }
            self._request = core.compile_model(_scaled(openvino, network), "CPU", options).create_infer_request()
        except RuntimeError as error:  # what OpenVINO raises, whatever it is
            raise ModelError(f"OpenVINO does not run {manifest.name}: {str(error).splitlines()[0][:200]}") from error
        expected = np.array(json.loads((converted / _REFERENCE).read_bytes()), np.float32)
        self.drift = float(np.abs(self.run(sample_pixels(manifest.preprocess))[:, 0] - expected).max())

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's output, (n, 1), for uint8 images of shape (n, 224, 224, 3)."""
        # The array is shared with OpenVINO while it runs, and its output is the request's own: hence the copy.
        self._request.infer([np.ascontiguousarray(batch)], share_inputs=True)
        scores: NDArray[np.float32] = self._request.get_output_tensor(0).data.copy()
        return scores


def preferred_precision() -> str:
    """Return ``bf16`` if this CPU multiplies in it, else ``float32``.

    Raises:
        ModelError: OpenVINO is not installed.
    """
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "float32"


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
            export(folder, "openvino", made / _GRAPH)
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
