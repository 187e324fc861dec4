"""``db compare``: models side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import JsonOption, cell, console, notice, print_json, read_settings
from core.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.compare import Comparison
    from db.models import Model

app = typer.Typer()

MOST_POINTS = 20_000


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL MODEL...", help="Names of models, or the beginnings of their ids.")
    ],
    limit: Annotated[int, typer.Option(min=0, help="List at most so many images with two labels.")] = 20,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the scores of both models against each other: a .png or .svg file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare models, two by two, on the images that both have scored.

    Beyond a million such images, the figures are those of a random sample of about a million.

    Examples:
        db compare card face-efficientnet

        db compare card face-efficientnet --limit 100 --plot scatter.png
    """
    from itertools import combinations

    from db.compare import compare_models
    from db.engine import open_engine
    from db.models import pick_model

    if len(names) < 2 or (plot and len(names) > 2):
        raise UsageError(f"{len(names)} model{'s' * (len(names) != 1)} given: " + "name two" + " or more" * (not plot))
    draw = _drawer(plot) if plot else None
    engine = open_engine(read_settings())
    chosen = [pick_model(engine, name) for name in names]
    if len({model.id for model in chosen}) < len(chosen):
        raise UsageError(f"{' and '.join(names)} name one model twice: give the beginnings of ids, see `db models`")
    for first, second in combinations(chosen, 2):
        found = compare_models(engine, first, second, limit=limit)
        if as_json:
            print_json(_comparison_as_json(found))
        else:
            _print_comparison(found)
        if draw:
            draw(engine, first, second)


def _drawer(out: Path) -> "Callable[[Engine, Model, Model], None]":
    """Return what draws two models; asked for first, so that nothing is computed in vain."""
    try:
        from db.scatter import FORMATS, draw_scatter
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'facesieve[train]'") from error
    from db.compare import read_points

    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--plot {out} ends in none of {', '.join(FORMATS)}")

    def draw(engine: "Engine", first: "Model", second: "Model") -> None:
        points, is_sample = read_points(engine, first, second, limit=MOST_POINTS)
        drawn = f"{len(points):,} images{', a random sample' * is_sample}"
        try:
            draw_scatter(points, first, second, drawn, out)
        except OSError as error:
            raise UsageError(f"--plot {out} cannot be written: {error.strerror}") from error
        notice(f"note: drew {drawn}: {out}")

    return draw


def _comparison_as_json(found: "Comparison") -> dict[str, Any]:
    first, second = found.first, found.second
    return {
        "models": [{"model": model.name, "id": model.id} for model in (first, second)],
        "images": found.images,
        "is_estimate": found.share < 1,
        "compared": found.compared,
        "agreement": found.agreement,
        "correlation": found.correlation,
        "mean_difference": found.mean_difference,
        "mean_absolute_difference": found.mean_absolute_difference,
        "labels": [
            {"first": first.shown(one), "second": second.shown(other), "images": number}
            for (one, other), number in found.labels.items()
        ],
        "disagreements": [
            {"uri": uri, "scores": [one, other], "labels": _labels_of(found, one, other)}
            for uri, one, other in found.disagreements
        ],
    }


def _labels_of(found: "Comparison", one: float, other: float) -> list[str]:
    return [found.first.shown(found.first.label(one)), found.second.shown(found.second.label(other))]


def _print_comparison(found: "Comparison") -> None:
    from rich.table import Table

    from db.compare import LABELS

    out, first, second = console(), found.first, found.second
    one, other = (f"{model.name} {model.id[:8]}" for model in (first, second))
    if not found.compared:
        out.print(f"{one} and {other} have scored no image in common", markup=False)
        return
    count = f"{found.images:,} images"
    if found.share < 1:
        count = f"about {count}; figures are of a random {found.compared:,} of them"
    out.print(f"{one} and {other}: both scored {count}", markup=False)
    correlation = "-" if found.correlation is None else f"{found.correlation:.4f}"
    out.print(
        f"same label: {found.agreement:.2%}   correlation: {correlation}   {other} less {one}: "
        f"{found.mean_difference:+.4f} on average, {found.mean_absolute_difference:.4f} either way",
        markup=False,
    )
    table = Table("", box=None, pad_edge=False)
    for label in LABELS:
        table.add_column(cell(f"{second.name}: {second.shown(label)}"), justify="right")
    for mine in LABELS:
        counted = (f"{found.labels[mine, yours]:,}" for yours in LABELS)
        table.add_row(cell(f"{first.name}: {first.shown(mine)}"), *counted)
    out.print(table)
    if found.disagreements:
        apart = Table(box=None, pad_edge=False)
        for title in (one, other, "labels", "image"):
            apart.add_column(cell(title))
        for uri, mine_score, your_score in found.disagreements:
            labels = " / ".join(_labels_of(found, mine_score, your_score))
            apart.add_row(*map(cell, (f"{mine_score:.4f}", f"{your_score:.4f}", labels, uri)))
        out.print(apart)
