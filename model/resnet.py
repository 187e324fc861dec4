"""The network of the published model, with its sizes as data so that tests can build a tiny one."""

from typing import Any

from model.preprocess import SIDE
from model.runtime import import_keras

#: Weights of the network at its full size, trainable or not.
PARAMETERS = 11_326_913


def build_card_resnet(
    *,
    stem_filters: int = 64,
    stem_stride: int = 2,
    stage_filters: tuple[int, ...] = (64, 128, 256, 512),
    dense_units: int = 256,
) -> Any:
    """Build the network with random weights; its defaults are the card's sizes.

    A 7x7 convolution and a max-pool; for each stage a residual block of stride 2 and one of stride 1; global average
    pool, dense, dropout, and one sigmoid unit.

    Args:
        stem_filters: channels of the first convolution.
        stem_stride: stride of the first convolution.
        stage_filters: channels of each stage.
        dense_units: width of the dense layer.

    Returns:
        A ``keras.Model``: float32 in [0, 1] of shape (n, 224, 224, 3) to the probability of a real face, (n, 1).
    """
    keras = import_keras()
    layers = keras.layers
    # Every layer is named: automatic names count up within a process, and would get into the saved file's digest.
    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    x = layers.Conv2D(stem_filters, 7, strides=stem_stride, padding="same", name="stem_conv")(pixels)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, filters in enumerate(stage_filters, start=1):
        x = _residual_block(x, filters, stride=2, name=f"stage{stage}a")
        x = _residual_block(x, filters, stride=1, name=f"stage{stage}b")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(dense_units, activation="relu", name="dense")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    p_real = layers.Dense(1, activation="sigmoid", name="p_real")(x)
    return keras.Model(pixels, p_real, name="card_resnet")


def _residual_block(x: Any, filters: int, *, stride: int, name: str) -> Any:
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""
    layers = import_keras().layers
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_shortcut")(x)
        shortcut = layers.BatchNormalization(name=f"{name}_shortcut_bn")(shortcut)
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", name=f"{name}_conv1")(x)
    x = layers.BatchNormalization(name=f"{name}_bn1")(x)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv2")(x)
    x = layers.BatchNormalization(name=f"{name}_bn2")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu2")(x)
