"""A trained network whose scores another one learns from."""

import warnings
from typing import Any

import torch
from torch import Tensor

from model.torch_network import TorchNetwork


class Teacher:
    """Scores the views that a network is trained on. Compiled for each size, it costs a fraction of a training step."""

    def __init__(self, network: Any, device: torch.device, precision: str) -> None:
        """Translate a ``keras.Model``.

        Args:
            network: of the teacher.
            device: that the views are on.
            precision: ``bf16`` or ``float32``.

        Raises:
            UsageError: it has a layer that is not supported.
        """
        self._network = TorchNetwork(network).eval().to(device, memory_format=torch.channels_last)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._compiled: dict[torch.Size, Any] = {}

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return P(real), (n, 1), for float images in [0, 1] of shape (n, 3, side, side)."""
        enabled = self._dtype is not torch.float32
        autocast = torch.autocast(pixels.device.type, self._dtype, enabled=enabled, cache_enabled=False)
        with torch.inference_mode(), autocast:
            if pixels.shape not in self._compiled:
                self._compiled[pixels.shape] = self._compile(pixels)
            return torch.sigmoid(self._compiled[pixels.shape](pixels).float())

    def _compile(self, pixels: Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the padding that is traced holds for this shape alone, and is meant to
            return torch.jit.freeze(torch.jit.trace(self._network, pixels, check_trace=False))
