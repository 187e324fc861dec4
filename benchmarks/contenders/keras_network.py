"""What those who run the network in Keras share: loading it, and preparing a picture as its artifact says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.manifest import read_manifest
from model.preprocess import configure_cv2, decode

MAX_PIXELS = 100_000_000


def load(artifact: Path) -> Any:
    """Return the ``keras.Model`` of an artifact."""
    file = artifact / read_manifest(artifact).file
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras.saving.load_model(file, compile=False)


def decoder(artifact: Path) -> Callable[[bytes], NDArray[np.uint8]]:
    """Return what turns a file's content into (224, 224, 3): our own decoding, which is no slower than plain cv2."""
    preset = read_manifest(artifact).preprocess
    configure_cv2()
    return lambda content: decode(content, preset, max_pixels=MAX_PIXELS).pixels
