"""A network of the card's kind that is a thousand times smaller, so that tests spend their time on other things."""

from collections.abc import Callable
from typing import Any

from core.manifest import Manifest
from core.settings import Settings

#: The whole of it takes well under a millisecond for an image.
SIZES: dict[str, Any] = {"stem_filters": 4, "stem_stride": 8, "stage_filters": (8,), "dense_units": 8}


def build_tiny_network(seed: int = 0) -> Any:
    """Return a ``keras.Model`` with random weights."""
    from model.resnet import build_card_resnet
    from model.runtime import import_keras

    import_keras().utils.set_random_seed(seed)
    return build_card_resnet(**SIZES)


def make_tiny_artifact(settings: Settings, name: str = "tiny", *, trained: bool = False, seed: int = 0) -> Manifest:
    """Make an artifact of a tiny network in the data directory of the settings. Imports TensorFlow."""
    from model.importer import save_network

    return save_network(build_tiny_network(seed), settings, name=name, trained=trained, source=f"tests, seed {seed}")


def small_model(build: Callable[[Any], Any], shape: tuple[int | None, ...] = (224, 224, 3)) -> Any:
    """Return a ``keras.Model`` of whatever is built on its input."""
    import keras

    pixels = keras.Input(shape)
    return keras.Model(pixels, build(pixels))


def mean_of(pixels: Any) -> Any:
    """Return one sigmoid unit on the mean colour of images."""
    from keras import layers

    return layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling2D()(pixels))
