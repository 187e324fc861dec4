"""``model train``, ``crossval`` and ``tune``."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.settings import make_data_dir
from model.cli_artifacts import OverwriteOption, report_made
from model.runtime import needs_extra

if TYPE_CHECKING:
    from model.crossval import Fold
    from model.history import Epoch
    from model.recipe import Recipe
    from model.tune import Trial

app = typer.Typer()

DataArgument = Annotated[Path, typer.Argument(help="Folder with real/ and generated/, or a manifest.csv.")]
PresetOption = Annotated[
    Literal["default", "card"], typer.Option(help="Ours, or what the published model's card tells of its training.")
]
RecipeOption = Annotated[
    Path | None, typer.Option(help="JSON file of a recipe, as `model tune` writes it, instead of a preset.")
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option(help="card-resnet, card-inception, efficientnet-lite0, efficientnet-lite2 or tiny-resnet."),
]
WeightsOption = Annotated[
    Literal["random", "imagenet"] | None, typer.Option(help="Start from these; ImageNet's need facesieve\\[transfer].")
]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")]
BatchOption = Annotated[int | None, typer.Option(min=2, help="Images in a step.")]
RateOption = Annotated[float | None, typer.Option("--lr", min=0, help="Learning rate; the peak of its schedule.")]
PrecisionOption = Annotated[
    Literal["bf16", "float32"] | None, typer.Option(help="float32 is faster where the CPU has no bf16 units.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="The same seed draws the same images in the same order.")]


@app.command()
def train(
    data: DataArgument,
    name: Annotated[str, typer.Option(help="Name of the new artifact.")],
    preset: PresetOption = "default",
    recipe: RecipeOption = None,
    architecture: ArchitectureOption = None,
    weights: WeightsOption = None,
    teacher: Annotated[str | None, typer.Option(help="Learn from the scores of this artifact, too.")] = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    lr: RateOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model on labelled images, and make an artifact of it with its history beside it.

    It learns from the split `train` and is judged by `val` after each epoch. Killed, it goes on where it was when the
    same command is given again: at most one epoch is lost.

    Examples:
        model train ./faces --name mine

        model train ./faces --name quick --architecture tiny-resnet --epochs 2

        model train ./faces --name as-published --preset card
    """
    with needs_extra("train"):
        from model.train import train as run_training
    from core.progress import ImageProgress

    changes = {
        "architecture": architecture,
        "weights": weights,
        "teacher": teacher,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": lr,
        "precision": precision,
        "seed": seed,
    }
    chosen = _recipe(preset, recipe, changes)
    with ImageProgress("training") as progress:
        manifest = run_training(
            read_settings(),
            data,
            chosen,
            name=name,
            overwrite=overwrite,
            on_batch=progress,
            on_epoch=lambda row: notice(_epoch_line(row, chosen.epochs)),
        )
    if as_json:
        print_json({"name": manifest.name, "id": manifest.id})
    else:
        report_made(manifest)


@app.command()
def crossval(
    data: DataArgument,
    by: Annotated[
        Literal["generator", "source"], typer.Option(help="What is left out together of the generated images.")
    ] = "generator",
    folds: Annotated[int | None, typer.Option(min=2, help="How many networks are trained; one a generator.")] = None,
    preset: PresetOption = "default",
    recipe: RecipeOption = None,
    architecture: ArchitectureOption = None,
    weights: WeightsOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchOption = None,
    precision: PrecisionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how a recipe fares on generators and cameras that it never saw: leave whole ones out, train, try on them.

    The split `test` is not touched. Killed, it goes on where it was when the same command is given again.

    Example:
        model crossval ./faces --by generator --folds 3 --epochs 8
    """
    with needs_extra("train"):
        from model.crossval import cross_validate
    from core.progress import ImageProgress
    from model.data import read_samples

    changes = {
        "architecture": architecture,
        "weights": weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "precision": precision,
    }
    folder = make_data_dir(read_settings()) / "training" / f"crossval-by-{by}"
    with ImageProgress("training") as progress:
        found = cross_validate(
            _recipe(preset, recipe, changes),
            read_samples(data),
            folder,
            by=by,
            folds=folds,
            on_batch=progress,
            on_fold=lambda fold: notice(_fold_line(fold)),
        )
    if as_json:
        print_json([asdict(fold) for fold in found])
    else:
        _show_folds(found)


@app.command()
def tune(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="File for the best recipe.")] = Path("recipe.json"),
    trials: Annotated[int, typer.Option(min=1, help="How many recipes are tried in all.")] = 20,
    preset: PresetOption = "default",
    recipe: RecipeOption = None,
    architecture: ArchitectureOption = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each trial.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Search for better hyper-parameters: learning rate, weight decay, smoothing, mixup, averaging and balance.

    Recipes that fall behind are given up early. Given again, the same command goes on with the trials that there are.
    The best recipe is for `model train --recipe`.

    Example:
        model tune ./faces --trials 20 --epochs 8
    """
    with needs_extra("train"):
        from model.tune import tune as run_search
    from core.progress import ImageProgress
    from model.data import read_samples
    from model.recipe import as_json as to_json

    start = _recipe(preset, recipe, {"architecture": architecture, "epochs": epochs})
    folder = make_data_dir(read_settings()) / "training" / "tune"
    with ImageProgress("training") as progress:
        best = run_search(
            start,
            read_samples(data, split="train"),
            read_samples(data, split="val"),
            folder,
            trials=trials,
            on_batch=progress,
            on_trial=lambda trial: notice(_trial_line(trial)),
        )
    out.write_text(to_json(best) + "\n", encoding="utf-8")
    if as_json:
        print_json(asdict(best))
    else:
        console().print(f"wrote {printable(str(out))}: train with `model train DATA --name NAME --recipe FILE`")


def _recipe(preset: str, path: Path | None, changes: dict[str, Any]) -> "Recipe":
    from model.recipe import PRESETS, read_recipe

    start = PRESETS[preset] if path is None else read_recipe(path)
    return replace(start, **{field: value for field, value in changes.items() if value is not None})


def _epoch_line(row: "Epoch", epochs: int) -> str:
    return (
        f"epoch {row.epoch} of {epochs}: loss {row.train_loss:.3f}; "
        f"validation: loss {row.val_loss:.3f}, AUC {row.val_auc:.4f}, accuracy {row.val_accuracy:.1%}; "
        f"{row.images_per_second:,.0f} images/s, {row.busy:.0%} of the time in the network"
    )


def _fold_line(fold: "Fold") -> str:
    left_out = ", ".join(map(printable, (*fold.generated, *fold.real)))
    return f"without {left_out}: AUC {fold.auc:.3f} on them, {fold.seen_auc:.3f} on what was seen"


def _trial_line(trial: "Trial") -> str:
    return f"trial {trial.number}: AUC {trial.val_auc:.4f}{', given up' if trial.is_pruned else ''}"


def _show_folds(folds: "list[Fold]") -> None:
    from rich.table import Table

    columns: list[tuple[str, Callable[[Fold], str]]] = [
        ("left out: generated", lambda fold: ", ".join(map(printable, fold.generated))),
        ("left out: real", lambda fold: ", ".join(map(printable, fold.real))),
        ("images", lambda fold: f"{fold.images:,}"),
        ("AUC", lambda fold: f"{fold.auc:.3f}"),
        ("real right", lambda fold: f"{fold.real_accuracy:.1%}"),
        ("generated right", lambda fold: f"{fold.generated_accuracy:.1%}"),
        ("AUC of what was seen", lambda fold: f"{fold.seen_auc:.3f}"),
    ]
    table = Table(*(name for name, _ in columns), box=None)
    for fold in folds:
        table.add_row(*(show(fold) for _, show in columns))
    console().print(table)
    console().print(f"mean AUC on what was left out: {sum(fold.auc for fold in folds) / len(folds):.3f}")
