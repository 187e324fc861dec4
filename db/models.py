"""The models that the database knows, their thresholds, and what another choice of thresholds would relabel."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

from sqlalchemy import Engine, Row, func, select, update

from core.errors import UsageError
from core.verdicts import ANSWERS, Status
from db import schema
from db.engine import translated
from db.labels import label_of
from db.ledger import reading

SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A model with the thresholds that make labels of its scores.

    Attributes:
        id: 32 hex digits.
        name: of the artifact.
        architecture: of the network.
        trained: false if its weights are random.
        generated_below: ``p_real`` at or below this is labelled generated.
        real_above: ``p_real`` above this is labelled real.
        thresholds_set_at: when somebody chose them; None if they are the artifact's.
        operating_points: by false-positive rate, the ``generated_below`` that keeps it; empty if not calibrated.
        registered_at: when a worker last started with it.
    """

    id: str
    name: str
    architecture: str
    trained: bool
    generated_below: float
    real_above: float
    thresholds_set_at: datetime | None
    operating_points: dict[float, float]
    registered_at: datetime

    def label(self, p_real: float) -> str:
        """Return the label of a score, as the view ``labelled_verdict`` gives it but for "(untrained)"."""
        return label_of(p_real, self)

    def shown(self, label: str) -> str:
        """Return a label as it is shown."""
        return label if self.trained else f"{label} (untrained)"

    def with_thresholds(self, generated_below: float, real_above: float) -> "Model":
        """Return the model with other thresholds.

        Raises:
            UsageError: they are not in [0, 1], or in the wrong order.
        """
        for name, value in (("generated-below", generated_below), ("real-above", real_above)):
            if not 0 <= value <= 1:  # not a number, too
                raise UsageError(f"--{name} {value} is not between 0 and 1")
        if generated_below > real_above:
            raise UsageError(
                f"generated-below {generated_below} is above real-above {real_above}: a score would have two labels"
            )
        return replace(self, generated_below=generated_below, real_above=real_above)

    def at_rate(self, rate: float) -> tuple[float, float]:
        """Return the operating point that keeps a false-positive rate: the stored rate, and its threshold.

        Raises:
            UsageError: no stored rate is as low.
        """
        if not self.operating_points:
            raise UsageError(
                f"model {self.name} has no operating points: run `model calibrate`, then start a worker with it"
            )
        kept = [stored for stored in self.operating_points if stored <= rate]
        if not kept:
            known = ", ".join(f"{stored:g}" for stored in sorted(self.operating_points))
            raise UsageError(f"--fpr {rate:g} is below what model {self.name} was calibrated for: it has {known}")
        return max(kept), self.operating_points[max(kept)]


def read_models(engine: Engine) -> list[Model]:
    """Return all models, by name, of each name the newest first."""
    model = schema.model
    with translated(engine), reading(engine) as connection:
        rows = connection.execute(select(model).order_by(model.c.name, model.c.registered_at.desc(), model.c.id)).all()
    return [_model_of(row) for row in rows]


def pick_model(engine: Engine, text: str) -> Model:
    """Return the newest model of a name, or the one whose id begins so.

    Raises:
        UsageError: there is none, or there are several such ids.
    """
    models = read_models(engine)
    named = [model for model in models if model.name == text]
    alike = [model for model in models if len(text) >= SHORTEST_ID and model.id.startswith(text)]
    if named:
        return named[0]
    if len(alike) > 1:
        raise UsageError(f"{text} is the beginning of {len(alike)} ids: {', '.join(model.id for model in alike)}")
    if not alike:
        known = (
            ", ".join(dict.fromkeys(model.name for model in models)) or "none: a worker enters its model at its start"
        )
        raise UsageError(f"the database has no model {text:.80}; it has {known}")
    return alike[0]


def count_scored(engine: Engine) -> dict[str, dict[str, int]]:
    """Return by model id how many images were scored, how many failed, and how many verdicts were pruned since.

    The sums of the job rows: an image that was scored again counts again.
    """
    job = schema.job
    failed = reduce(add, (job.c[f"n_{status}"] for status in Status if status not in ANSWERS))
    sums = {"scored": job.c[f"n_{Status.OK}"], "failed": failed, "pruned": job.c.pruned}
    query = (
        select(job.c.model_id, *(func.sum(column).label(name) for name, column in sums.items()))
        .where(job.c.status == "done")
        .group_by(job.c.model_id)
    )
    with translated(engine), reading(engine) as connection:
        return {row.model_id: {name: int(getattr(row, name)) for name in sums} for row in connection.execute(query)}


def count_relabelled(engine: Engine, old: Model, new: Model) -> Counter[tuple[str, str]]:
    """Return how many images each change of label concerns, when a model's thresholds change.

    Only scores between old and new thresholds are counted, on the index.

    Returns:
        The number of images by old and new label; without those that keep theirs.
    """
    verdict = schema.verdict
    edges = sorted({old.generated_below, old.real_above, new.generated_below, new.real_above})
    moves = Counter[tuple[str, str]]()
    with translated(engine), reading(engine) as connection:
        for low, high in pairwise(edges):
            # Between two edges, the upper one included, all scores have the label of the upper one.
            labels = old.label(high), new.label(high)
            if labels[0] != labels[1]:
                between = select(func.count()).where(
                    verdict.c.model_id == old.id, verdict.c.p_real > low, verdict.c.p_real <= high
                )
                moves[labels] += connection.execute(between).scalar_one()
    return +moves


def save_thresholds(engine: Engine, model: Model, *, are_chosen: bool) -> Model:
    """Write a model's thresholds; labels follow at once.

    Args:
        engine: of the database.
        model: with the thresholds to write.
        are_chosen: whether they shall outlast the next start of a worker, which else brings the artifact's.

    Returns:
        The model as it is now.
    """
    set_at = datetime.now(UTC) if are_chosen else None
    values = {
        "generated_below": model.generated_below,
        "real_above": model.real_above,
        "thresholds_set_at": set_at,
    }
    with translated(engine), engine.begin() as connection:
        connection.execute(update(schema.model).where(schema.model.c.id == model.id).values(values))
    return replace(model, thresholds_set_at=set_at)


def _model_of(row: Row[Any]) -> Model:
    points = json.loads(row.operating_points or "{}")
    return Model(
        id=row.id,
        name=row.name,
        architecture=row.architecture,
        trained=row.trained,
        generated_below=row.generated_below,
        real_above=row.real_above,
        thresholds_set_at=row.thresholds_set_at,
        operating_points={float(rate): float(threshold) for rate, threshold in points.items()},
        registered_at=row.registered_at,
    )
