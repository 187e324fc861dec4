"""``db models`` and ``threshold``: which models there are, and from which score on an image is called what."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import JsonOption, cell, console, notice, print_json, printable, read_settings
from core.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections import Counter

    from db.models import Model

app = typer.Typer()


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the models that have scored something, their thresholds, and who chose these.

    An image that was scored twice counts twice.

    Example:
        db models
    """
    from db.engine import open_engine
    from db.models import count_scored, read_models

    engine = open_engine(read_settings())
    found, counts = read_models(engine), count_scored(engine)
    rows = [_as_json(model) | counts.get(model.id, {"scored": 0, "failed": 0, "pruned": 0}) for model in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print("no models: a worker enters its model at its start")
        return
    from rich.table import Table

    titles = ("model", "id", "trained", "generated below", "real above", "chosen by", "scored", "failed", "pruned")
    table = Table(*titles, box=None, pad_edge=False)
    for row in rows:
        thresholds = (f"{row['generated_below']:g}", f"{row['real_above']:g}", row["thresholds_of"])
        counted = (f"{row[name]:,}" for name in ("scored", "failed", "pruned"))
        trained = "yes" if row["trained"] else "no"
        table.add_row(*map(cell, (row["model"], row["id"][:12], trained, *thresholds, *counted)))
    console().print(table)


@app.command()
def threshold(
    model: Annotated[str, typer.Argument(help="Name of a model, or the beginning of its id.", show_default=False)],
    generated_below: Annotated[float | None, typer.Option(help="p_real at or below this is generated.")] = None,
    real_above: Annotated[float | None, typer.Option(help="p_real above this is real; between them is unsure.")] = None,
    fpr: Annotated[
        float | None, typer.Option(help="The share of real photos that may be called generated: chooses the former.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the thresholds of the artifact.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose from which score on an image counts as generated or real; without options, show that.

    Labels follow at once, without scoring anything again. The choice outlasts new workers.

    Examples:
        db threshold face-efficientnet

        db threshold face-efficientnet --generated-below 0.2 --real-above 0.8

        db threshold face-efficientnet --fpr 0.01
    """
    from db.engine import open_engine
    from db.models import count_relabelled, pick_model, save_thresholds

    options = {"--generated-below": generated_below, "--real-above": real_above, "--fpr": fpr}
    given = [name for name, value in options.items() if value is not None]
    if (reset and given) or {"--generated-below", "--fpr"} <= set(given):
        raise UsageError(f"{' and '.join([*(['--reset'] if reset else []), *given])} do not go together")
    engine = open_engine(read_settings())
    old = pick_model(engine, model)
    if not given and not reset:
        _show_thresholds(old, as_json=as_json)
        return
    remark = ""
    if reset:
        new, remark = _artifacts_thresholds(old)
    elif fpr is not None:
        new, remark = _at_rate(old, fpr, real_above)
    else:
        low = old.generated_below if generated_below is None else generated_below
        new = old.with_thresholds(low, old.real_above if real_above is None else real_above)
    moves = count_relabelled(engine, old, new)
    new = save_thresholds(engine, new, are_chosen=not reset)
    if remark:
        notice(f"note: {remark}")
    if as_json:
        relabelled = [{"from": one, "to": other, "images": number} for (one, other), number in moves.items()]
        print_json(_as_json(new) | {"relabelled": relabelled})
    else:
        _print_change(old, new, moves)


def _as_json(model: "Model") -> dict[str, Any]:
    return {
        "model": model.name,
        "id": model.id,
        "architecture": model.architecture,
        "trained": model.trained,
        "generated_below": model.generated_below,
        "real_above": model.real_above,
        "thresholds_of": "db threshold" if model.thresholds_set_at else "artifact",
        "thresholds_set_at": model.thresholds_set_at,
        "operating_points": {f"{rate:g}": value for rate, value in sorted(model.operating_points.items())},
        "registered_at": model.registered_at,
    }


def _show_thresholds(model: "Model", *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(model))
        return
    whose = f"chosen at {model.thresholds_set_at:%Y-%m-%d %H:%M} UTC" if model.thresholds_set_at else "the artifact's"
    line = f"{model.name} {model.id[:12]}: {_words(model)}; {whose}"
    console().print(printable(line), markup=False)
    for rate, value in sorted(model.operating_points.items()):
        console().print(f"--fpr {rate:g}: generated at or below {value:g}")


def _words(model: "Model") -> str:
    if model.generated_below == model.real_above:
        return f"generated at or below {model.generated_below:g}, else real"
    return f"generated at or below {model.generated_below:g}, real above {model.real_above:g}, else unsure"


def _at_rate(model: "Model", rate: float, real_above: float | None) -> tuple["Model", str]:
    stored, low = model.at_rate(rate)
    high = max(low, model.real_above) if real_above is None else real_above
    remark = "" if stored == rate else f"the nearest stored rate that is no higher than {rate:g} is {stored:g}"
    return model.with_thresholds(low, high), remark


def _artifacts_thresholds(model: "Model") -> tuple["Model", str]:
    """Return the model with the thresholds of its artifact, if that is on this machine, and what to say if not."""
    from core.manifest import artifact_name, find_artifact, read_manifest

    try:
        manifest = read_manifest(find_artifact(artifact_name(model.name), read_settings()))
    except ModelError:
        manifest = None
    if manifest is None or model.id not in (manifest.id, manifest.with_faces().id):
        return model, "the artifact is not on this machine: the next worker that starts with it brings its thresholds"
    return model.with_thresholds(manifest.generated_below, manifest.real_above), ""


def _print_change(old: "Model", new: "Model", moves: "Counter[tuple[str, str]]") -> None:
    out = console()
    out.print(printable(f"{old.name} {old.id[:12]}"), markup=False)
    out.print(f"was: {_words(old)}")
    out.print(f"is:  {_words(new)}")
    for (before, after), number in moves.most_common():
        out.print(f"{number:,} images: {old.shown(before)} -> {new.shown(after)}", markup=False)
    if not moves:
        out.print("no image changes its label")
