"""The second network is what its authors said of it, at a size of our choice."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architectures import build
from model.inception import build_card_inception
from model.preprocess import scale

pytestmark = pytest.mark.tensorflow
#: What training can turn into PyTorch.
TRAINABLE_KINDS = {
    "InputLayer",
    "Conv2D",
    "BatchNormalization",
    "ReLU",
    "MaxPooling2D",
    "GlobalAveragePooling2D",
    "Dense",
    "Dropout",
    "Concatenate",
}


@pytest.fixture(scope="module")
def inception() -> Any:
    return build("card-inception")


def test_the_network_has_the_weights_that_its_description_says(inception: Any) -> None:
    assert inception.count_params() == 1_064_481


def test_the_modules_are_64_128_pool_256_512(inception: Any) -> None:
    shapes = [tuple(inception.get_layer(f"module{number}_concat").output.shape[1:]) for number in (1, 2, 3, 4)]

    assert shapes == [(56, 56, 64), (56, 56, 128), (28, 28, 256), (28, 28, 512)]


def test_each_module_has_four_branches_of_the_same_size(inception: Any) -> None:
    for number, filters in enumerate((64, 128, 256, 512), start=1):
        branches = inception.get_layer(f"module{number}_concat").input
        assert [branch.shape[-1] for branch in branches] == [filters // 4] * 4
        kernels = {
            name: inception.get_layer(f"module{number}_{name}_conv").kernel_size[0]
            for name in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_1x1")
        }
        assert kernels == {"1x1": 1, "3x3_reduce": 1, "3x3": 3, "5x5_reduce": 1, "5x5": 5, "pool_1x1": 1}


def test_every_layer_can_be_trained_and_is_named(inception: Any) -> None:
    assert {type(layer).__name__ for layer in inception.layers} == TRAINABLE_KINDS
    again = build_card_inception()
    assert [layer.name for layer in again.layers] == [layer.name for layer in inception.layers]


def test_a_tiny_one_maps_images_to_one_probability_each(images: NDArray[np.uint8]) -> None:
    tiny = build_card_inception(stem_filters=4, stem_stride=8, module_filters=((4,), (8,)), dense_units=4)
    assert tiny.count_params() < 5_000

    output = tiny(scale(images[:2]), training=False).numpy()

    assert output.dtype == np.float32
    assert output.shape == (2, 1)
    assert ((output > 0) & (output < 1)).all()
