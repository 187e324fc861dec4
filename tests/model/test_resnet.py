"""The network is the card's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.preprocess import scale
from model.resnet import PARAMETERS, build_card_resnet

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def card() -> Any:
    return build_card_resnet()


def test_the_network_has_exactly_the_cards_parameters(card: Any) -> None:
    assert card.count_params() == PARAMETERS == 11_326_913


def test_the_network_maps_images_to_one_probability_each(card: Any, images: NDArray[np.uint8]) -> None:
    assert card.input_shape == (None, 224, 224, 3)
    assert card.output_shape == (None, 1)

    output = card(scale(images[:2]), training=False).numpy()

    assert output.dtype == np.float32
    assert output.shape == (2, 1)
    assert ((output > 0) & (output < 1)).all()


def test_every_stage_halves_the_image_and_has_two_blocks(card: Any) -> None:
    shapes = [
        tuple(card.get_layer(f"stage{stage}{block}_add").output.shape[1:]) for stage in (1, 2, 3, 4) for block in "ab"
    ]

    assert shapes == [
        (side, side, filters) for side, filters in ((28, 64), (14, 128), (7, 256), (4, 512)) for _ in range(2)
    ]


def test_the_shortcut_is_a_convolution_only_where_the_shape_changes(card: Any) -> None:
    shortcuts = {layer.name for layer in card.layers if layer.name.endswith("_shortcut")}

    assert shortcuts == {"stage1a_shortcut", "stage2a_shortcut", "stage3a_shortcut", "stage4a_shortcut"}


def test_the_same_builder_makes_a_tiny_network(tiny: Any) -> None:
    assert tiny.input_shape == (None, 224, 224, 3)
    assert tiny.output_shape == (None, 1)
    assert tiny.count_params() < 5_000
