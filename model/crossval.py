"""How a recipe fares on what it has never seen: whole generators and whole real sources are left out of training."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.metrics import roc_auc_score

from core.errors import UsageError
from model.data import Sample
from model.feed import labels, serving_pixels
from model.recipe import Recipe
from model.train import OnBatch, run
from model.training import Training

By = Literal["generator", "source"]


@dataclass(frozen=True, slots=True)
class Fold:
    """What a network made of generators and sources that it had never seen.

    Attributes:
        generated: generators (or sources of generated images) that were left out.
        real: real sources that were left out.
        images: number of images that were left out, which it was then tried on.
        auc: ROC AUC on these.
        real_accuracy: share of the real ones that scored above 0.5.
        generated_accuracy: share of the generated ones that did not.
        seen_auc: ROC AUC on the validation images of what was not left out.
    """

    generated: tuple[str, ...]
    real: tuple[str, ...]
    images: int
    auc: float
    real_accuracy: float
    generated_accuracy: float
    seen_auc: float


def cross_validate(
    recipe: Recipe,
    samples: Sequence[Sample],
    folder: Path,
    *,
    by: By = "generator",
    folds: int | None = None,
    on_batch: OnBatch = lambda _done, _total: None,
    on_fold: Callable[[Fold], None] = lambda _: None,
) -> list[Fold]:
    """Train once for each fold, without its generators and real sources, and try the network on them.

    Args:
        recipe: how to train.
        samples: labelled images; those of the ``test`` split are not touched.
        folder: of the checkpoints, one folder a fold; what is there is gone on with.
        by: what generated images are grouped by; real ones are grouped by their sources.
        folds: number of folds; None takes one for each generator.
        on_batch: see ``model.train``.
        on_fold: is called after each fold.

    Raises:
        UsageError: there are fewer groups than folds.
    """
    used = [one for one in samples if one.split != "test"]
    results = []
    for number, left_out in enumerate(deal(used, by, folds)):
        rest = [one for one in used if _group(one, by) not in left_out]
        train, val = ([one for one in rest if one.split == split] for split in ("train", "val"))
        training = Training(recipe, train, val, folder / f"fold{number}")
        run(training, on_batch, lambda _: None)
        unseen = [one for one in used if _group(one, by) in left_out]
        truth = labels(unseen)[:, 0] > 0.5
        scores = training.score(serving_pixels(unseen, recipe.preprocess))[:, 0]
        fold = Fold(
            generated=tuple(sorted(name for is_real, name in left_out if not is_real)),
            real=tuple(sorted(name for is_real, name in left_out if is_real)),
            images=len(unseen),
            auc=float(roc_auc_score(truth, scores)),
            real_accuracy=float(np.mean(scores[truth] > 0.5)),
            generated_accuracy=float(np.mean(scores[~truth] <= 0.5)),
            seen_auc=training.history[-1].val_auc,
        )
        on_fold(fold)
        results.append(fold)
    return results


def deal(samples: Sequence[Sample], by: By, folds: int | None) -> list[set[tuple[bool, str]]]:
    """Deal generators and real sources out, the largest first and each to the fold with the fewest of its class.

    Returns:
        The groups, (is_real, name), that each fold leaves out.

    Raises:
        UsageError: there are fewer groups of a class than folds, or fewer than two folds.
    """
    sizes = Counter(_group(one, by) for one in samples)
    counts = Counter(is_real for is_real, _ in sizes)
    wanted = folds or counts[False]
    if not 2 <= wanted <= min(counts[False], counts[True]):
        raise UsageError(
            f"{wanted} folds of {counts[False]} generated and {counts[True]} real sources: "
            "each fold leaves out at least one of either, and there are at least two folds"
        )
    dealt: list[set[tuple[bool, str]]] = [set() for _ in range(wanted)]
    images = [{False: 0, True: 0} for _ in range(wanted)]
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fewest = min(range(wanted), key=lambda fold: images[fold][group[0]])
        dealt[fewest].add(group)
        images[fewest][group[0]] += size
    return dealt


def _group(sample: Sample, by: By) -> tuple[bool, str]:
    is_by_generator = by == "generator" and not sample.is_real
    return sample.is_real, (sample.generator or sample.source) if is_by_generator else sample.source
