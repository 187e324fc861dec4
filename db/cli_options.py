"""Options of more than one ``db`` command: which verdicts are meant."""

from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import UsageError
from core.verdicts import Status

if TYPE_CHECKING:
    from db.filters import Filter

LabelOption = Annotated[str | None, typer.Option(help="real, generated or unsure.")]
MinScoreOption = Annotated[float | None, typer.Option(min=0, max=1, help="Lowest p_real, included.")]
MaxScoreOption = Annotated[float | None, typer.Option(min=0, max=1, help="Highest p_real, included.")]
StatusOption = Annotated[Status | None, typer.Option(help="What became of the image.")]
PathOption = Annotated[str | None, typer.Option(help="Glob over the whole path, such as '*/cats/*.jpg'.")]
ScanOption = Annotated[int | None, typer.Option(help="Only what this scan scored last.")]
ModelOption = Annotated[str | None, typer.Option(help="Only verdicts of this model.")]


def read_filter(
    label: str | None,
    status: Status | None,
    min_score: float | None,
    max_score: float | None,
    path: str | None,
    scan: int | None,
    model: str | None,
) -> "Filter":
    """Return the filter that the options above ask for.

    Raises:
        UsageError: there is no such label.
    """
    from db.filters import Filter
    from db.labels import LABELS

    if label is not None and label not in LABELS:
        raise UsageError(f"--label {label} is none of {', '.join(LABELS)}")
    return Filter(label, status, min_score, max_score, path, scan, model)
