"""The epochs of a training: rows of a CSV, and curves."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Epoch:
    """What happened in one epoch: a row of the history.

    Attributes:
        epoch: counted from 1.
        learning_rate: at its end.
        train_loss: mean over its batches, with label smoothing and mixup.
        val_loss: log-loss on the validation set, as are the next two, with the weights that would be saved.
        val_accuracy: at 0.5.
        val_auc: area under the ROC curve.
        images_per_second: that were trained on, validation left out.
        busy: share of that time that was spent in training steps, and not in waiting for images: 1 is the limit of
            the arithmetic.
        seconds: of the whole epoch.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_auc: float
    images_per_second: float
    busy: float
    seconds: float


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write epochs as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows({name: round(value, 6) for name, value in asdict(row).items()} for row in history)


def draw_history(history: Sequence[Epoch]) -> bytes:
    """Draw losses, AUC and learning rate over the epochs, as PNG."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    losses, aucs, rates = figure.subplots(1, 3)
    epochs = [row.epoch for row in history]
    losses.plot(epochs, [row.train_loss for row in history], label="train (smoothed, mixed)")
    losses.plot(epochs, [row.val_loss for row in history], label="validation")
    losses.legend(frameon=False)
    aucs.plot(epochs, [row.val_auc for row in history])
    rates.plot(epochs, [row.learning_rate for row in history])
    for axes, name in ((losses, "log-loss"), (aucs, "validation ROC AUC"), (rates, "learning rate")):
        axes.set_xlabel("epoch")
        axes.set_title(name)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()
