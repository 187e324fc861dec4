"""A Keras network and its translation to PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.errors import UsageError
from model.architectures import ARCHITECTURES, build
from model.torch_network import TorchNetwork
from tests.tiny import small_model

pytestmark = pytest.mark.tensorflow


def _scramble(network: Any) -> None:
    """Give every weight a value of its own: fresh normalisation does nothing, and would hide mistakes."""
    chance = np.random.default_rng(0)
    network.set_weights(
        [weight + chance.uniform(0.01, 0.05, weight.shape).astype(np.float32) for weight in network.get_weights()]
    )


def _by_torch(network: TorchNetwork, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return torch.sigmoid(network.eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2))).numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_same_scores_in_torch_as_in_keras(architecture: str) -> None:
    network = build(architecture)
    if architecture != "efficientnet-lite2":  # scrambled, its many layers saturate the score
        _scramble(network)
    pixels = np.random.default_rng(1).random((2, 224, 224, 3), np.float32)
    in_keras = np.asarray(network(pixels, training=False))
    assert np.abs(_by_torch(TorchNetwork(network), pixels) - in_keras).max() < 1e-4


def test_weights_go_back_as_they_came(tiny: Any) -> None:
    before = [weight.copy() for weight in tiny.get_weights()]
    translated = TorchNetwork(tiny)
    tiny.set_weights([np.zeros_like(weight) for weight in before])
    after = translated.write_weights().get_weights()
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("side", [64, 97, 128, 160])
def test_a_translation_takes_images_of_other_sizes(tiny: Any, side: int) -> None:
    scores = _by_torch(TorchNetwork(tiny), np.random.default_rng(0).random((3, side, side, 3), np.float32))
    assert scores.shape == (3, 1)


def test_a_layer_that_cannot_be_translated_is_named() -> None:
    from keras import layers

    def build_on(pixels: Any) -> Any:
        return layers.Dense(1, activation="sigmoid")(layers.Flatten(name="flat")(pixels))

    with pytest.raises(UsageError, match="flat of kind Flatten"):
        TorchNetwork(small_model(build_on))
