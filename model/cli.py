"""``model``: make, list and show models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import JsonOption, console, new_app, print_json, printable, read_settings, run
from core.errors import ModelError
from model import cli_artifacts, cli_audit, cli_evaluate, cli_train
from model.cli_artifacts import FlipOption, NameOption, OverwriteOption, report_made

if TYPE_CHECKING:
    from core.manifest import Manifest

app = new_app("Make, list and show models. Each is an artifact: a folder of its weights and a manifest about them.")
app.add_typer(cli_artifacts.app)
app.add_typer(cli_audit.app)
app.add_typer(cli_evaluate.app)
app.add_typer(cli_train.app)


@app.command()
def init(
    name: NameOption = "untrained",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same model.")] = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model with random weights, to try the system with. Its scores mean nothing.

    Example:
        model init
    """
    from model.importer import init_untrained

    report_made(init_untrained(read_settings(), name=name, seed=seed, overwrite=overwrite))


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A .keras, .h5 or .hdf5 file, or a SavedModel folder.")],
    name: NameOption,
    preprocess: Annotated[
        Literal["card", "rgb-area", "rgb-scaled"],
        typer.Option(help="How it wants its images: as the published model's card has them, or RGB, area-scaled."),
    ] = "card",
    flip: FlipOption = False,
    untrained: Annotated[bool, typer.Option("--untrained", help="Mark its scores as meaningless.")] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make an artifact of a model file. One that would run code when it is loaded is refused.

    The model must turn 224 x 224 x 3 values in [0, 1] into one value, the probability that the face is real.

    Examples:
        model import face_classification_model1.h5 --name card

        model import ./exported --name mine --preprocess rgb-area
    """
    from model.importer import import_model

    manifest = import_model(
        read_settings(), file, name=name, preprocess=preprocess, flip=flip, trained=not untrained, overwrite=overwrite
    )
    report_made(manifest)


@app.command("list")
def list_command(as_json: JsonOption = False) -> None:
    """List the models.

    Example:
        model list --json
    """
    from model.artifact import list_artifacts

    artifacts = list_artifacts(read_settings())
    if as_json:
        print_json([_as_json(folder, found) for folder, found in artifacts])
        return
    if not artifacts:
        console().print("no models: make one with `model init` or `model import FILE --name NAME`")
        return
    from rich.table import Table

    table = Table("name", "trained", "architecture", "preprocess", "weights", "id", box=None)
    for folder, found in artifacts:
        if isinstance(found, ModelError):
            table.add_row(printable(folder.name), "broken: see `model show`")
        else:
            trained = "yes" if found.trained else "no"
            weights = f"{found.parameters:,}"
            table.add_row(found.name, trained, found.architecture, found.preprocess, weights, found.id[:12])
    console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of an artifact, or path of its folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show the manifest of a model, once its weights have been checked against it.

    Example:
        model show face-efficientnet
    """
    from core.manifest import find_artifact
    from model.artifact import verify

    folder = find_artifact(name, read_settings())
    shown = _as_json(folder, verify(folder))
    if as_json:
        print_json(shown)
        return
    for field, value in shown.items():
        console().print(f"{field:16}{printable(str(value))}", markup=False)


def main() -> None:
    """Entry point of the console script."""
    run(app)


def _as_json(folder: Path, found: "Manifest | ModelError") -> dict[str, Any]:
    if isinstance(found, ModelError):
        return {"name": folder.name, "folder": str(folder), "error": str(found)}
    return {"name": found.name, "id": found.id, "folder": str(folder), **found.model_dump(mode="json")}
