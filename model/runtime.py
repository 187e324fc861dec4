"""Load the heavy libraries: TensorFlow and Keras late and quietly, cv2 with a limit. Importing this loads none."""

import os
from typing import Any

from core.errors import ModelError


def limit_cv2(max_pixels: int) -> None:
    """Make cv2 refuse larger images itself, those too whose header states a smaller size than they have.

    cv2 reads this limit when it is loaded, so call it before ``model.preprocess`` is imported; later it has no effect
    and cv2's default of 2^30 pixels is in force.
    """
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(max_pixels)


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
