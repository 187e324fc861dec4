"""One training: network, optimizer and checkpoint. It survives being killed: at most the running epoch is lost."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.errors import UsageError
from model.architectures import build
from model.data import Sample
from model.feed import Batch, Feed, labels, serving_pixels
from model.history import Epoch, write_history
from model.recipe import Recipe, as_json
from model.runtime import import_keras
from model.teacher import Teacher
from model.torch_network import TorchNetwork

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"


class Training:
    """One training: a network, its optimizer, and the folder that they are kept in."""

    def __init__(
        self, recipe: Recipe, train: Sequence[Sample], val: Sequence[Sample], folder: Path, teacher: Any = None
    ) -> None:
        """Start, or go on from the checkpoint in the folder.

        Args:
            recipe: how to train.
            train: samples to learn from.
            val: samples to judge by, after each epoch.
            folder: of the checkpoint and the history; is made.
            teacher: ``keras.Model`` to learn from beside the labels, if the recipe has one.

        Raises:
            UsageError: the folder holds a training of another recipe or other images, or there is no such network.
            SourceError: an image cannot be read.
        """
        self.recipe = recipe
        self.folder = folder
        self.history: list[Epoch] = []
        self._identity = _identity(recipe, train, val)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        import_keras().utils.set_random_seed(recipe.seed)
        keras_network = build(recipe.architecture)
        if recipe.weights == "imagenet":
            from model.efficientnet import load_imagenet_weights

            load_imagenet_weights(keras_network, recipe.architecture)
        self._network = TorchNetwork(keras_network).to(self._device, memory_format=torch.channels_last)
        self._average = (
            AveragedModel(self._network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
            if recipe.ema
            else None
        )
        self._teacher = None if teacher is None else Teacher(teacher, self._device, recipe.precision)
        self._optimizer = _optimizer(recipe, self._network)
        self._best: dict[str, Any] | None = None
        self._losses: NDArray[np.float64] | None = None  # of each source
        self._feed = Feed(train, recipe, threads=max(2, (os.cpu_count() or 2) - 2))
        self._schedule = _schedule(recipe, self._optimizer, self._feed.steps)
        self._val_pixels = serving_pixels(val, recipe.preprocess)
        self._val_labels = labels(val)
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()

    @property
    def is_done(self) -> bool:
        """Whether all epochs are through, or the validation loss has stopped falling."""
        losses = [row.val_loss for row in self.history]
        patience = self.recipe.patience
        has_stalled = patience is not None and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience
        return len(losses) >= self.recipe.epochs or bool(has_stalled)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return self._feed.steps

    def run_epoch(self, on_batch: Callable[[int], None] = lambda _: None) -> Epoch:
        """Train for one epoch, validate, and write checkpoint and history.

        Args:
            on_batch: is called with the number of images after each batch.
        """
        number = len(self.history)
        torch.manual_seed(self.recipe.seed * 100_003 + number)  # dropout and mixup are the same after a resumption
        started = time.perf_counter()
        losses, busy, images = _Losses(len(self._feed.sources)), 0.0, 0
        self._network.train()
        for batch in self._feed.epoch(number, self._losses):
            step_started = time.perf_counter()
            losses.add(self._step(batch), batch[2])
            busy += time.perf_counter() - step_started
            images += len(batch[0])
            on_batch(len(batch[0]))
        trained = time.perf_counter() - started
        scores = self.validate()
        val_loss = _log_loss(scores, self._val_labels)
        if self.recipe.schedule == "plateau":
            self._schedule.step(val_loss)
        row = Epoch(
            epoch=number + 1,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            train_loss=losses.mean,
            val_loss=val_loss,
            val_accuracy=float(np.mean((scores > 0.5) == (self._val_labels > 0.5))),
            val_auc=float(roc_auc_score(self._val_labels[:, 0], scores[:, 0])),
            images_per_second=images / trained,
            busy=busy / trained,
            seconds=time.perf_counter() - started,
        )
        if self.recipe.patience is not None and val_loss <= min((one.val_loss for one in self.history), default=np.inf):
            self._best = {name: value.clone() for name, value in self._saved().state_dict().items()}
        self._losses = losses.smooth(self._losses)
        self.history.append(row)
        self._keep()
        return row

    def validate(self) -> NDArray[np.float32]:
        """Return P(real) for the validation set, (n, 1), by the weights that would be saved."""
        return self.score(self._val_pixels)

    def score(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return P(real), (n, 1), for uint8 images of shape (n, 224, 224, 3)."""
        network = self._saved().eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(pixels), 64):
                with self._autocast():
                    logits = network(self._to_input(pixels[start : start + 64]))
                parts.append(torch.sigmoid(logits.float()).cpu().numpy())
        return np.concatenate(parts)

    def finish(self) -> Any:
        """Return the ``keras.Model`` with the trained weights."""
        network = self._saved()
        if self._best is not None:
            network.load_state_dict(self._best)
        return network.write_weights()

    def _step(self, batch: Batch) -> NDArray[np.float32]:
        """Learn from a batch, and return the loss of each image."""
        pixels, targets = self._to_input(batch[0]), torch.from_numpy(batch[1]).to(self._device)
        targets = targets * (1 - self.recipe.label_smoothing) + self.recipe.label_smoothing / 2
        if self.recipe.mixup:
            pixels, targets = _mix(pixels, targets, self.recipe.mixup)
        if self._teacher is not None:
            targets = targets.lerp(self._teacher(pixels), self.recipe.distillation)
        with self._autocast():
            logits = self._network(pixels)
        losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        self._optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        self._optimizer.step()
        if self.recipe.schedule == "cosine":
            self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        return np.asarray(losses.detach().cpu())[:, 0]

    def _to_input(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Channels come first in the shape, and stay last in memory."""
        return torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() / 255

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def _saved(self) -> TorchNetwork:
        network: TorchNetwork = self._network if self._average is None else self._average.module
        return network

    def _keep(self) -> None:
        state = {
            "identity": self._identity,
            "history": [asdict(row) for row in self.history],
            "network": self._network.state_dict(),
            "average": self._average and self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "best": self._best,
            "losses": None if self._losses is None else self._losses.tolist(),
        }
        scratch = self.folder / f"{CHECKPOINT}.new"
        torch.save(state, scratch)
        scratch.replace(self.folder / CHECKPOINT)
        write_history(self.history, self.folder / HISTORY)

    def _restore(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, map_location=self._device, weights_only=True)
        if state["identity"] != self._identity:
            raise UsageError(f"{self.folder} holds a training of another recipe or other images: choose another name")
        self.history = [Epoch(**row) for row in state["history"]]
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._best = state["best"]
        self._losses = np.array(state["losses"])


class _Losses:
    """Adds up the losses of images by their source."""

    def __init__(self, sources: int) -> None:
        self._sums = np.zeros(sources)
        self._counts = np.zeros(sources)

    def add(self, losses: NDArray[np.float32], sources: NDArray[np.int64]) -> None:
        np.add.at(self._sums, sources, losses)
        np.add.at(self._counts, sources, 1)

    @property
    def mean(self) -> float:
        return float(self._sums.sum() / self._counts.sum())

    def smooth(self, before: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Return the mean of each source, half of it from before; that of one that was not drawn stays as it was."""
        old = np.full_like(self._sums, self.mean) if before is None else before
        new = np.divide(self._sums, self._counts, out=old.copy(), where=self._counts > 0)
        return new if before is None else (old + new) / 2


def _identity(recipe: Recipe, train: Sequence[Sample], val: Sequence[Sample]) -> str:
    names = [str(one.path) for one in (*train, *val)]
    return sha256(json.dumps([as_json(recipe), names]).encode()).hexdigest()


def _optimizer(recipe: Recipe, network: TorchNetwork) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), recipe.learning_rate, eps=1e-7, fused=True)  # eps: as Keras
    kernels = [one for one in network.parameters() if one.ndim > 1]
    others = [
        one for one in network.parameters() if one.ndim <= 1
    ]  # decay would pull scales and biases off for nothing
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate, fused=True)


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    if recipe.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=5)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=0.1, cycle_momentum=False
    )


def _mix(pixels: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each image and its target with another one of the batch (mixup)."""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(pixels), device=pixels.device)
    return pixels.lerp(pixels[other], 1 - share), targets.lerp(targets[other], 1 - share)


def _log_loss(scores: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float(F.binary_cross_entropy(torch.from_numpy(scores), torch.from_numpy(truth)))
