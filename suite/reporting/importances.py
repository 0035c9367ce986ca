"""Importance of hyperparameters, from the trials' files alone; the study's Optuna database is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from suite.reporting.spaces import contains
from suite.spec import Choice, Experiment, LogFloat, Range, Space
from suite.store.trial import TrialState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ENOUGH = 4  # finished trials that an arm needs before importances are worth a picture


def importances(experiment: Experiment, states: Sequence[TrialState]) -> dict[str, dict[str, float]]:
    """fANOVA's share of each hyperparameter in the variance of validation accuracy, by arm; shares add up to 1.

    Arms with one hyperparameter, too few finished trials or no variance are left out.
    Source: Hutter, Hoos and Leyton-Brown, 2014, ICML, https://proceedings.mlr.press/v32/hutter14.html
    """
    import optuna  # here, as its import takes long

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, dict[str, float]] = {}
    for name, arm in experiment.arms.items():
        space = {**experiment.space, **arm.space}
        done = [s for s in states if s.trial.arm == name and s.state == "finished" and _within(s, space)]
        if len(space) < 2 or len(done) < ENOUGH or len({s.best for s in done}) < 2:
            continue
        study = optuna.create_study(direction="maximize")
        distributions = {path: _distribution(choices) for path, choices in space.items()}
        for s in done:
            params = dict(s.trial.canonical_params)
            study.add_trial(optuna.trial.create_trial(value=s.best, params=params, distributions=distributions))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found[name] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


def _within(state: TrialState, space: Space) -> bool:
    """Whether the trial has a value within the space for every hyperparameter, and for no other."""
    params = state.trial.canonical_params
    return set(params) == set(space) and all(contains(choices, params[path]) for path, choices in space.items())


def _distribution(choices: Range) -> BaseDistribution:
    """As `search.sampler` has it, which the reading side does not import."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(choices, Choice):
        return CategoricalDistribution(choices.values)
    return FloatDistribution(choices.low, choices.high, log=isinstance(choices, LogFloat))
