"""Import TensorFlow and Keras, late and quietly. Only this package imports them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import ModelError


def import_tensorflow() -> Any:
    """Return the module ``tensorflow``.

    Raises:
        ModelError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with _without_chatter():
            import tensorflow
    except ModuleNotFoundError as error:
        raise ModelError(
            "TensorFlow is not installed: pip install 'facesieve[worker]'; the container image for CPUs has none, and "
            "runs the models that were in model/artifacts when it was built"
        ) from error
    return tensorflow


def import_keras() -> Any:
    """Return the module ``keras``, running on TensorFlow.

    Raises:
        ModelError: it or TensorFlow is not installed.
    """
    import_tensorflow()
    # Keras reads this once, when it is imported, and else takes what another project left in ~/.keras/keras.json.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with _without_chatter():
            import keras
    except ModuleNotFoundError as error:
        raise ModelError("Keras is not installed: pip install 'facesieve[worker]'") from error
    return keras


def import_openvino() -> Any:
    """Return the module ``openvino``.

    Raises:
        ModelError: it is not installed.
    """
    # Or importing it would report to its makers, unasked; it does without this package.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    with needs_extra("worker"):
        import openvino
    return openvino


def has_gpu() -> bool:
    """Tell whether this process may use an NVIDIA GPU, without loading anything that would take hold of it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "-1" and any(Path("/dev").glob("nvidia[0-9]*"))


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Name the extra of facesieve that is not installed, where an import in the block fails for the want of it.

    Raises:
        ModelError: a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise ModelError(f"{package} is not installed: pip install 'facesieve[{extra}]'") from error


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Drop what native code writes to stderr while it is loaded: oneDNN's greeting heeds no setting. Errors raise."""
    if "tensorflow" in sys.modules and "keras" in sys.modules:
        yield
        return
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
