"""The second network of the published model's authors, with its sizes as data so that tests can build a tiny one.

They say no more of it than this: inception modules (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842) of 64, 128,
a pool, 256 and 512 filters, with 1x1, 3x3, 5x5 and pooled branches; global average pool, dense 256, dropout 0.5, one
sigmoid unit. The stem here is that of their ResNet.

A module's number is taken as the channels of its output, a quarter from each branch. That gives 1,064,481 weights and
0.97 billion multiplications an image, where their ResNet has 11.3 million and 0.58 billion: it takes the same order of
time. Taken as the channels of each branch, it would be 15.2 million and 13.6 billion.
"""

from typing import Any

from model.preprocess import SIDE
from model.runtime import import_keras


def build_card_inception(
    *,
    stem_filters: int = 64,
    stem_stride: int = 2,
    module_filters: tuple[tuple[int, ...], ...] = ((64, 128), (256, 512)),
    dense_units: int = 256,
) -> Any:
    """Build the network with random weights; its defaults are the full sizes.

    Args:
        stem_filters: channels of the first convolution.
        stem_stride: stride of the first convolution.
        module_filters: channels of each module, each divisible by 4; a max-pool stands between groups.
        dense_units: width of the dense layer.

    Returns:
        A ``keras.Model``: float32 in [0, 1] of shape (n, 224, 224, 3) to the probability of a real face, (n, 1).
    """
    keras = import_keras()
    layers = keras.layers
    # Every layer is named, see ``model.resnet``.
    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    x = _convolve(pixels, stem_filters, 7, stride=stem_stride, name="stem")
    number = 0
    for group, modules in enumerate(module_filters):
        x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"pool{group}" if group else "stem_pool")(x)
        for filters in modules:
            number += 1
            x = _inception_module(x, filters, name=f"module{number}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(dense_units, activation="relu", name="dense")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    p_real = layers.Dense(1, activation="sigmoid", name="p_real")(x)
    return keras.Model(pixels, p_real, name="card_inception")


def _inception_module(x: Any, filters: int, *, name: str) -> Any:
    """Four branches of the same size, beside each other."""
    layers = import_keras().layers
    width = filters // 4
    pooled = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [
        _convolve(x, width, 1, name=f"{name}_1x1"),
        _convolve(_convolve(x, width, 1, name=f"{name}_3x3_reduce"), width, 3, name=f"{name}_3x3"),
        _convolve(_convolve(x, width, 1, name=f"{name}_5x5_reduce"), width, 5, name=f"{name}_5x5"),
        _convolve(pooled, width, 1, name=f"{name}_pool_1x1"),
    ]
    return layers.Concatenate(name=f"{name}_concat")(branches)


def _convolve(x: Any, filters: int, kernel: int, *, stride: int = 1, name: str) -> Any:
    layers = import_keras().layers
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", name=f"{name}_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
