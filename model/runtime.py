"""Import TensorFlow and Keras, late and quietly. Only this package imports them."""

import os
from typing import Any

from core.errors import ModelError


def import_tensorflow() -> Any:
    """Return the module ``tensorflow``.

    Raises:
        ModelError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise ModelError("TensorFlow is not installed: pip install 'facesieve[worker]'") from error
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
        import keras
    except ModuleNotFoundError as error:
        raise ModelError("Keras is not installed: pip install 'facesieve[worker]'") from error
    return keras
