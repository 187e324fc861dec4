"""The command line ``model``: make, list and show artifacts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import DataDirOption, JsonOption, console, new_app, print_json, printable, run, settings_from

if TYPE_CHECKING:
    from core.manifest import Manifest

app = new_app(
    "Make, list and show models. A model is kept as an artifact: its weights and a manifest that says what they are."
)

OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the artifact of that name.")]


def main() -> None:
    """Run the command line."""
    run(app)


@app.command("init")
def init(
    name: Annotated[str, typer.Option(help="Name of the artifact.")] = "untrained",
    seed: Annotated[int, typer.Option(help="Seed of the weights; the same seed gives the same model.")] = 0,
    overwrite: OverwriteOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Make a model with random weights, to try the system with.

    Its scores mean nothing.

    Example: `model init`
    """
    settings = settings_from(data_dir=data_dir)
    from model.importer import init_untrained

    _report_made(init_untrained(settings, name=name, seed=seed, overwrite=overwrite))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .keras, .h5 or .hdf5 file, or a SavedModel folder.")],
    name: Annotated[str, typer.Option(help="Name of the artifact.", show_default=False)],
    preprocess: Annotated[
        Literal["card", "rgb-area"],
        typer.Option(help="How images are prepared: as the published model's card does, or RGB with area scaling."),
    ] = "card",
    untrained: Annotated[bool, typer.Option("--untrained", help="Mark its scores as meaningless.")] = False,
    overwrite: OverwriteOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Make an artifact of a model file.

    The model must map images of 224 x 224 x 3, values in [0, 1], to one probability of a real face. Files that would
    run code when loaded are refused.

    Example: `model import face_classification_model1.h5 --name card`
    """
    settings = settings_from(data_dir=data_dir)
    from model.importer import import_model

    manifest = import_model(
        settings, file, name=name, preprocess=preprocess, trained=not untrained, overwrite=overwrite
    )
    _report_made(manifest)


@app.command("list")
def list_(json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """List the models.

    Example: `model list`
    """
    from core.manifest import Manifest
    from model.artifact import list_artifacts

    artifacts = list_artifacts(settings_from(data_dir=data_dir))
    if json:
        print_json(
            [
                {"folder": str(folder), "manifest": _as_json(found)}
                if isinstance(found, Manifest)
                else {"folder": str(folder), "error": str(found)}
                for folder, found in artifacts
            ]
        )
        return
    if not artifacts:
        console().print("no models: make one with `model init`, or `model import FILE --name NAME`")
        return
    from rich.table import Table

    table = Table("name", "trained", "architecture", "preprocess", "weights", "id")
    for folder, found in artifacts:
        if isinstance(found, Manifest):
            table.add_row(
                found.name,
                "yes" if found.trained else "no",
                found.architecture,
                found.preprocess,
                f"{found.parameters:,}",
                found.id[:12],
            )
        else:
            table.add_row(printable(folder.name), "broken")
    console().print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of an artifact, or path of its folder.")],
    json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Show one model's manifest and check its weights against it.

    Example: `model show untrained`
    """
    from core.manifest import find_artifact
    from model.artifact import verify

    folder = find_artifact(name, settings_from(data_dir=data_dir))
    manifest = verify(folder)
    if json:
        print_json({"folder": str(folder), "manifest": _as_json(manifest)})
        return
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for field, value in ({"folder": folder} | _as_json(manifest)).items():
        table.add_row(field, printable(str(value)))
    console().print(table)


def _as_json(manifest: "Manifest") -> dict[str, Any]:
    return {"id": manifest.id, **manifest.model_dump(mode="json")}


def _report_made(manifest: "Manifest") -> None:
    note = "" if manifest.trained else " Its scores mean nothing: it is not trained."
    console().print(f"made model {manifest.name} ({manifest.parameters:,} weights, id {manifest.id[:12]}).{note}")
