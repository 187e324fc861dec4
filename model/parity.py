"""How far an engine's scores are from those of the reference, on photos: whatever is faster must still be right."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.manifest import Manifest
from model.network import load_network
from model.preprocess import decode, scale

#: Largest change of p_real, on any of the samples, that an engine may make against Keras in float32.
MAX_DRIFT = 0.01
#: Four of the example faces; where they come from stands in examples/README.md.
SAMPLES = Path(__file__).parent / "samples"


def sample_pixels(preprocess: str) -> NDArray[np.uint8]:
    """Return photos as a worker feeds them to the network: uint8 of shape (n, 224, 224, 3).

    Args:
        preprocess: of the model's manifest.
    """
    files = sorted(SAMPLES.glob("*.jpg"))
    return np.stack([decode(file.read_bytes(), preprocess, max_pixels=1_000_000).pixels for file in files])


def reference_scores(folder: Path, manifest: Manifest, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the network of an artifact says when Keras runs it in float32. Needs TensorFlow.

    Args:
        folder: of the artifact.
        manifest: of the artifact.
        pixels: uint8 of shape (n, 224, 224, 3); all n go through the network at once.

    Returns:
        float32 of shape (n,).
    """
    scores: NDArray[np.float32] = np.asarray(load_network(folder, manifest).call(scale(pixels)), np.float32)[:, 0]
    return scores
