"""``model ensemble``, ``export`` and ``explain``: what can be done with artifacts that there are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import JsonOption, console, notice, print_json, printable, read_settings
from core.errors import FacesieveError, ImageError, StorageError

if TYPE_CHECKING:
    from core.manifest import Manifest

app = typer.Typer()

NameOption = Annotated[str, typer.Option(help="Name of the new artifact.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the artifact of that name.")]
FlipOption = Annotated[
    bool, typer.Option("--flip", help="Score the mean of the image and its mirror image, in twice the time.")
]


@app.command()
def ensemble(
    members: Annotated[list[str], typer.Argument(help="Names of two or more artifacts, or paths of their folders.")],
    name: NameOption,
    flip: FlipOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a model whose score is the mean of the scores of others, which it holds copies of.

    They must want their images prepared in the same way. It takes as long as all of them together.

    Example:
        model ensemble first second third --name three --flip
    """
    from model.ensemble import make_ensemble

    report_made(make_ensemble(read_settings(), members, name=name, flip=flip, overwrite=overwrite))


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Name of an artifact, or path of its folder.")],
    kind: Annotated[
        Literal["keras", "onnx", "openvino"], typer.Option("--format", help="What is to run it; the last is OpenVINO.")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .keras, .onnx, or .xml, which gets a .bin beside it.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write the network of a model to a file for another runtime.

    It turns 224 x 224 x 3 values in [0, 1] into the probability that the face is real; the pixels must be prepared as
    the model's manifest says. OpenVINO computes in float32 only if asked to (INFERENCE_PRECISION_HINT).

    Examples:
        model export card --format onnx --out card.onnx

        model export card --format openvino --out card.xml --overwrite
    """
    from core.manifest import find_artifact
    from model.export import export as write

    manifest = write(find_artifact(name, read_settings()), kind, out, overwrite=overwrite)
    console().print(
        f"wrote {printable(str(out))}: model {manifest.name}, id {manifest.id[:12]}, preprocess {manifest.preprocess}",
        markup=False,
    )


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[str | None, typer.Option(help="Name or folder of the model artifact.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the drawings to.")] = Path("explained"),
    as_json: JsonOption = False,
) -> None:
    """Draw where in images a model found the evidence for its label (Grad-CAM), over what it saw of them.

    The heat is evidence for "generated" if that is the label, else for "real"; the name of the drawing says which.
    Exits with 1 if an image could not be explained.

    Examples:
        model explain portrait.jpg --model card

        model explain *.jpg --model card --out why --json
    """
    from core.manifest import find_artifact
    from core.progress import ImageProgress
    from model.explain import Explainer, explain_file
    from model.preprocess import configure_cv2

    settings = read_settings(model=model)
    explainer = Explainer(find_artifact(settings.model, settings))
    configure_cv2()
    rows: list[dict[str, Any]] = []
    with ImageProgress("explaining") as report:
        for image in images:
            try:
                found, drawing = explain_file(explainer, image, out, settings)
            except (ImageError, StorageError) as error:
                rows.append({"image": str(image), "error": str(error)})
            else:
                label = found.label if explainer.manifest.trained else f"{found.label} (untrained)"
                row = {"p_real": found.p_real, "label": label, "evidence_for": found.evidence_for}
                rows.append({"image": str(image), **row, "drawing": str(drawing)})
            report(len(rows), len(images))
    failed = [row for row in rows if "error" in row]
    if as_json:
        print_json(rows)
    else:
        _print_explanations(rows)
    if failed:
        raise FacesieveError(f"{len(failed)} of {len(images)} images could not be explained")


def report_made(manifest: "Manifest") -> None:
    """Say that an artifact was made, and which."""
    untrained = "" if manifest.trained else "; it is not trained, so its scores mean nothing"
    console().print(f"made model {manifest.name}, {manifest.parameters:,} weights, id {manifest.id[:12]}{untrained}")


def _print_explanations(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if "error" in row:
            notice(f"{row['image']}: {row['error']}")
        else:
            text = f"{row['p_real']:.4f}  {row['label']}  {row['image']} -> {row['drawing']}"
            console().print(printable(text), markup=False)
