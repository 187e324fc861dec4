"""Labelled images that are drawn, and a network that tells them apart by their brightness, though not always."""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from core.manifest import Manifest
from core.settings import Settings
from tests.tiny import mean_of, small_model

#: Shades of grey about which images are drawn.
REAL, GENERATED = 0.58, 0.42
COLUMNS = ("file", "label", "split", "source", "generator")


def draw(path: Path, shade: float, seed: int) -> None:
    """Draw a PNG of 60 x 48 pixels: noise about a shade of grey in [0, 1]."""
    noise = np.random.default_rng(seed).normal(shade, 0.05, (48, 60, 3))
    path.write_bytes(cv2.imencode(".png", (noise.clip(0, 1) * 255).astype(np.uint8))[1].tobytes())


def draw_data(folder: Path, *, each: int = 40, split: str = "val", spread: float = 0.08, seed: int = 0) -> Path:
    """Draw a data set: real images are lighter on average. Returns its ``manifest.csv``.

    Args:
        folder: to draw into.
        each: number of images of each class.
        split: that they are in.
        spread: of the shades within a class.
        seed: other images for another.
    """
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(2 * each):
        is_real, half = number % 2 == 0, number // 2 % 2
        name = f"{number:04}.png"
        draw(folder / name, chance.normal(REAL if is_real else GENERATED, spread), number)
        source = ("camera", "phone")[half] if is_real else ("gan", "diffusion")[half]
        rows.append((name, "real" if is_real else "generated", split, source, "" if is_real else source.upper()))
    return write_manifest(folder, rows)


def write_manifest(folder: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Write a ``manifest.csv`` of rows as ``COLUMNS`` has them."""
    path = folder / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def make_bright_artifact(
    settings: Settings, name: str = "bright", *, slope: float = 40.0, offset: float = 0.0
) -> Manifest:
    """Make an artifact whose score is ``sigmoid(slope * (mean - 0.5) + offset)``. Imports TensorFlow.

    With a slope of 25, that is the probability that an image of ``draw_data`` is real: 0.16 / 0.08 squared.
    """
    from model.importer import save_network

    network = small_model(mean_of)
    weights = np.full((3, 1), slope / 3, np.float32)
    network.layers[-1].set_weights([weights, np.array([offset - slope / 2], np.float32)])
    return save_network(network, settings, name=name, preprocess="rgb-scaled", trained=True, source="tests")
