"""A Keras network in PyTorch, to train it: forward and backward in bf16, several times as fast on a CPU.

The Keras model stays the one definition of the network. Its layers are translated one by one, and the trained weights
go back into it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from core.errors import UsageError


class TorchNetwork(nn.Module):
    """The layers of a functional ``keras.Model`` whose last one is a sigmoid unit; it gives the logit instead."""

    def __init__(self, network: Any) -> None:
        """Translate a network, weights and all.

        Raises:
            UsageError: it has a layer that is not supported.
        """
        super().__init__()
        self.layers = nn.ModuleDict()
        self._steps: list[tuple[str, list[str]]] = []
        self._keras = network
        for layer in network.layers:
            inputs = [tensor._keras_history.operation.name for tensor in _inputs(layer)]
            if inputs:
                self.layers[layer.name] = _translate(layer)
                self._steps.append((layer.name, inputs))
        self._input = network.layers[0].name
        self.read_weights()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logit of P(real), (n, 1), for float images in [0, 1] of shape (n, 3, height, width)."""
        values = {self._input: pixels}
        for name, inputs in self._steps:
            values[name] = self.layers[name](*(values[one] for one in inputs))
        return values[self._steps[-1][0]]

    def read_weights(self) -> None:
        """Take the weights from the Keras network."""
        for name, module in self.layers.items():
            arrays = [np.asarray(weight) for weight in self._keras.get_layer(name).get_weights()]
            with torch.no_grad():
                for slot, array in zip(_slots(module), arrays, strict=True):
                    slot.copy_(torch.from_numpy(np.array(_to_torch(module, array))))

    def write_weights(self) -> Any:
        """Put the weights into the Keras network, and return it."""
        for name, module in self.layers.items():
            arrays = [_to_keras(module, slot.detach().float().cpu().numpy()) for slot in _slots(module)]
            self._keras.get_layer(name).set_weights(arrays)
        return self._keras


class _SameConv(nn.Conv2d):
    """Pads as TensorFlow does: with a stride of 2 the odd pixel goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        low, high = _same(x.shape[-1], self.kernel_size[0], self.stride[0])
        if low == high:
            return F.conv2d(x, self.weight, self.bias, self.stride, low, self.dilation, self.groups)
        return super().forward(F.pad(x, (low, high, low, high)))


class _SamePool(nn.Module):
    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        low, high = _same(x.shape[-1], self.size, self.stride)
        if low != high:
            x = F.pad(x, (low, high, low, high), value=float("-inf"))
            low = 0
        return F.max_pool2d(x, self.size, self.stride, low)


class _Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after that gives ceil(length / stride) outputs."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _inputs(layer: Any) -> list[Any]:
    return layer._inbound_nodes[0].input_tensors if layer._inbound_nodes else []


def _translate(layer: Any) -> nn.Module:
    kind = type(layer).__name__
    make = _LAYERS.get(kind)
    if make is None:
        raise UsageError(f"layer {layer.name} of kind {kind} cannot be trained: see model/torch_network.py")
    return make(layer)


def _convolution(layer: Any) -> nn.Module:
    inputs, depthwise = _inputs(layer)[0].shape[-1], type(layer).__name__ == "DepthwiseConv2D"
    make = _SameConv if layer.padding == "same" else nn.Conv2d
    return make(
        inputs,
        inputs if depthwise else layer.filters,
        layer.kernel_size[0],
        stride=layer.strides[0],
        groups=inputs if depthwise else 1,
        bias=layer.use_bias,
    )


def _dense(layer: Any) -> nn.Module:
    """The activation of the last layer, a sigmoid, is left to the loss."""
    dense = nn.Linear(*layer.kernel.shape)
    return nn.Sequential(dense, nn.ReLU()) if layer.activation.__name__ == "relu" else dense


_LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    "Add": lambda _: _Call(lambda *parts: sum(parts[1:], parts[0])),
    "BatchNormalization": lambda layer: nn.BatchNorm2d(
        layer.gamma.shape[0], eps=layer.epsilon, momentum=1 - layer.momentum
    ),
    "Concatenate": lambda _: _Call(lambda *parts: torch.cat(parts, 1)),
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _convolution,
    "Dropout": lambda layer: nn.Dropout(layer.rate),
    "GlobalAveragePooling2D": lambda _: _Call(lambda x: x.mean((2, 3))),
    "MaxPooling2D": lambda layer: _SamePool(layer.pool_size[0], layer.strides[0]),
    "ReLU": lambda layer: nn.ReLU() if layer.max_value is None else nn.Hardtanh(0, float(layer.max_value)),
    "Rescaling": lambda layer: _Call(lambda x: x * layer.scale + layer.offset),
}


def _slots(module: nn.Module) -> list[Tensor]:
    """Return a layer's tensors in the order in which Keras lists them."""
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_mean is not None
        assert module.running_var is not None
        return [module.weight, module.bias, module.running_mean, module.running_var]
    return list(module.parameters())


def _to_torch(module: nn.Module, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.ndim == 4:  # height, width, in, out; depthwise: height, width, channel, 1
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        return array.transpose(2, 3, 0, 1) if depthwise else array.transpose(3, 2, 0, 1)
    return array.T


def _to_keras(module: nn.Module, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.ndim == 4:
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        return array.transpose(2, 3, 0, 1) if depthwise else array.transpose(2, 3, 1, 0)
    return array.T
