"""`model train`: from labelled images to an artifact, with its history beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UsageError
from core.manifest import Manifest, find_artifact
from core.settings import Settings, make_data_dir
from model.artifact import verify
from model.data import read_samples
from model.history import Epoch, draw_history
from model.importer import check_name, save_network
from model.network import load_network
from model.recipe import Recipe, as_json
from model.training import HISTORY, Training

OnBatch = Callable[[int, int], None]
OnEpoch = Callable[[Epoch], None]


def train(
    settings: Settings,
    data: Path,
    recipe: Recipe,
    *,
    name: str,
    overwrite: bool = False,
    on_batch: OnBatch = lambda _done, _total: None,
    on_epoch: OnEpoch = lambda _: None,
) -> Manifest:
    """Train a network on the ``train`` split of a data set, judged by its ``val`` split, and make an artifact of it.

    What is needed to go on after a kill is kept in ``training/NAME`` of the data directory, and stays there.

    Args:
        settings: tells where the data directory is.
        data: folder or ``manifest.csv``, see ``model.data``.
        recipe: how to train.
        name: of the artifact.
        overwrite: whether to replace an artifact of that name.
        on_batch: is called with the number of images that were trained on, and of all.
        on_epoch: is called after each epoch.

    Raises:
        UsageError: the name is not one, or taken, or a training of that name with another recipe has begun, or the
            teacher does not fit.
        ModelError: the teacher is missing or broken.
        SourceError: the data set cannot be read.
        SettingsError: the data directory cannot be written.
    """
    check_name(name, settings, overwrite=overwrite)
    folder = make_data_dir(settings) / "training" / name
    teacher = None if recipe.teacher is None else _load_teacher(recipe, settings)
    training = Training(recipe, read_samples(data, split="train"), read_samples(data, split="val"), folder, teacher)
    run(training, on_batch, on_epoch)
    about = f"trained on {data.name}, {len(training.history)} epochs, seed {recipe.seed}"
    return save_network(
        training.finish(),
        settings,
        name=name,
        overwrite=overwrite,
        half=True,
        beside=_log(training),
        trained=True,
        source=about,
        preprocess=recipe.preprocess,
        architecture=recipe.architecture,
    )


def _load_teacher(recipe: Recipe, settings: Settings) -> Any:
    folder = find_artifact(recipe.teacher or "", settings)
    manifest = verify(folder)
    if manifest.format != "keras":
        raise UsageError(f"teacher {manifest.name} is a SavedModel: `model import` its .keras or .h5 file")
    if manifest.preprocess != recipe.preprocess:
        raise UsageError(f"teacher {manifest.name} takes {manifest.preprocess} images, the recipe {recipe.preprocess}")
    return load_network(folder, manifest).root


def run(training: Training, on_batch: OnBatch, on_epoch: OnEpoch) -> None:
    """Train to the end, from wherever it was."""
    images = training.steps * training.recipe.batch_size
    total = images * training.recipe.epochs
    while not training.is_done:
        done = images * len(training.history)

        def count(more: int) -> None:
            nonlocal done
            done += more
            on_batch(done, total)

        on_epoch(training.run_epoch(count))


def _log(training: Training) -> dict[str, bytes]:
    """Return the files that are kept beside the weights: history, curves and recipe."""
    return {
        HISTORY: (training.folder / HISTORY).read_bytes(),
        "history.png": draw_history(training.history),
        "recipe.json": as_json(training.recipe).encode() + b"\n",
    }
