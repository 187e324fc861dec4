"""From scores to labels: the rule, for Python and for queries. The view ``labelled_verdict`` has the same one."""

from collections.abc import Sequence
from math import inf
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Row, String, Table, case, cast, null

LABELS = ("real", "generated", "unsure")


class Thresholds(Protocol):
    """A model, as far as labels are concerned."""

    @property
    def real_above(self) -> float:
        """``p_real`` above this is labelled real."""

    @property
    def generated_below(self) -> float:
        """``p_real`` at or below this is labelled generated, unless it is real."""

    @property
    def trained(self) -> bool:
        """False if its weights are random: its labels say so."""


def label_bounds(model: Thresholds | Row[Any], label: str) -> tuple[float, float]:
    """Return above which score, and up to which, a model gives a label; -1 and infinity are no bounds."""
    if label == "real":
        return model.real_above, inf
    if label == "generated":
        return -1.0, min(model.generated_below, model.real_above)  # what passes both thresholds is real
    return model.generated_below, model.real_above


def label_of(score: float, model: Thresholds) -> str:
    """Return the label of a score, as the view gives it but for "(untrained)"."""
    if score <= label_bounds(model, "generated")[1]:
        return "generated"
    return "unsure" if score <= label_bounds(model, "unsure")[1] else "real"


def label_column(score: ColumnElement[float], model: Thresholds | Row[Any]) -> ColumnElement[str | None]:
    """Return the same for scores in a query, without joining the view's three tables; null for no score."""
    (_, generated), (_, unsure) = label_bounds(model, "generated"), label_bounds(model, "unsure")
    return case(
        (score <= generated, "generated"), (score <= unsure, "unsure"), (score.is_not(None), "real"), else_=None
    )


def shown_column(score: ColumnElement[float], model: Thresholds | Row[Any]) -> ColumnElement[str | None]:
    """Return labels as they are shown: those of random weights end in "(untrained)"."""
    label = label_column(score, model)
    return label if model.trained else label + " (untrained)"


def shown_by_model(table: Table, models: Sequence[Any]) -> ColumnElement[str | None]:
    """Return the labels of verdicts, from a table that has no labels; null for failures.

    Args:
        table: the verdicts, of no other models.
        models: with ids and thresholds: rows of ``schema.model``, or what is made of them.
    """
    if len(models) == 1:  # as nearly always: the indexes of scores tell everything, and no row is read
        return shown_column(table.c.p_real, models[0])
    by_model = [(table.c.model_id == model.id, shown_column(table.c.p_real, model)) for model in models]
    return case(*by_model) if by_model else cast(null(), String)
