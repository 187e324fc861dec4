"""`model tune`: search for better hyper-parameters of the default recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from model.data import Sample
from model.recipe import Recipe
from model.train import OnBatch, run
from model.training import Training

JOURNAL = "trials.log"
_RANGES = {
    "learning_rate": FloatDistribution(2e-4, 8e-3, log=True),
    "weight_decay": FloatDistribution(1e-3, 0.2, log=True),
    "label_smoothing": FloatDistribution(0, 0.15),
    "mixup": FloatDistribution(0, 0.6),
    "ema": FloatDistribution(0.9, 0.9995),
    "balance": FloatDistribution(0, 1),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        number: counted from 0.
        val_auc: ROC AUC on the validation set at the end, or when it was given up.
        is_pruned: whether it was given up early.
        params: what was drawn.
    """

    number: int
    val_auc: float
    is_pruned: bool
    params: dict[str, Any]


def tune(
    recipe: Recipe,
    train: Sequence[Sample],
    val: Sequence[Sample],
    folder: Path,
    *,
    trials: int,
    on_batch: OnBatch = lambda _done, _total: None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Recipe:
    """Try recipes until there are so many trials, those of an earlier run included.

    Optuna's sampler (TPE) proposes them; one whose validation AUC is below the median of the earlier ones at the same
    epoch is given up.

    Args:
        recipe: where to start; the first trial is this one, as far as it is within the ranges.
        train: samples to learn from.
        val: samples to judge by.
        folder: of the journal of trials and their checkpoints; what is there is gone on with.
        trials: how many in all.
        on_batch: see ``model.train``; counts anew for each trial.
        on_trial: is called after each trial.

    Returns:
        The best recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="tune",
        storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=recipe.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, recipe.epochs // 4)),
    )
    if not study.trials:
        given = {name: getattr(recipe, name) for name in _RANGES}
        study.enqueue_trial({name: value for name, value in given.items() if _is_within(value, _RANGES[name])})

    def judge(trial: optuna.Trial) -> float:
        drawn: dict[str, Any] = {
            name: trial.suggest_float(name, one.low, one.high, log=one.log) for name, one in _RANGES.items()
        }
        training = Training(replace(recipe, **drawn), train, val, folder / f"trial{trial.number}")

        def report(row: Any) -> None:
            trial.report(row.val_auc, row.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        run(training, on_batch, report)
        return training.history[-1].val_auc

    finished = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED
    left = trials - len(study.get_trials(states=finished))
    if left > 0:
        study.optimize(judge, n_trials=left, callbacks=[lambda _, trial: on_trial(_summary(trial))])
    return replace(recipe, **study.best_params)


def _is_within(value: float | None, allowed: FloatDistribution) -> bool:
    return value is not None and allowed.low <= value <= allowed.high


def _summary(trial: optuna.trial.FrozenTrial) -> Trial:
    is_pruned = trial.state == optuna.trial.TrialState.PRUNED
    last = trial.intermediate_values[max(trial.intermediate_values)]
    return Trial(trial.number, last, is_pruned, trial.params)
