"""The finalists of a search: its best recipes and the default ones, trained again with fresh seeds.

A search selects by a noisy figure. On 6,000 images an accuracy of 99 % has a standard error of 0.13 points, which is
more than most recipes differ by, and the seed adds to it. So the recipes that the search cannot tell from its best one
are compared on new trainings. They are measured on the validation images; no test image is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from suite.evaluation.reseeded import fresh_seeds, reseeded
from suite.execution.options import Options
from suite.execution.replay import replay
from suite.execution.stop import Stop
from suite.hardware import device
from suite.ranking.statistics import wilson
from suite.spec import Arm, Experiment, Status, Trial
from suite.store.finalists import best_of, by_recipe, default_of
from suite.store.study import StudyDir, finalists_of
from suite.store.trial import TrialState

FRESH_SEED = 2000  # the finalists' seeds derive from it; those of the search and of the final evaluation do not

SEEDS = 3  # with two, the 95 % interval of a mean reaches 12.7 standard errors to either side; with three, 4.3


def finalists(states: Sequence[TrialState], arms: Mapping[str, Arm], most: int) -> list[TrialState]:
    """The trials of a search whose recipes are to be trained again, by arm.

    Of every arm with a finished trial: the best finished trials of different recipes, at most `most` of them, whose
    validation accuracy is no more than one standard error below the arm's best; and the trial of the arm's default
    recipe, however it ended. The standard error is the binomial one of the best, by Wilson's interval, since the plain
    one is zero where every answer is right.

    Source: the one standard error rule of Breiman et al., 1984, "Classification and Regression Trees"; Hastie,
    Tibshirani and Friedman, 2009, "The Elements of Statistical Learning", section 7.10.
    """
    chosen: list[TrialState] = []
    for name, arm in arms.items():
        own = [s for s in states if s.trial.arm == name]
        best = best_of(own)
        if best is None or best.best is None:
            continue
        lowest = wilson(best.best, best.record.images if best.record else 0, z=1.0)[0]
        finished = [s for s in by_recipe(own).values() if s.state == "finished"]
        close = [s for s in finished if s.best is not None and s.best >= lowest]
        picked = sorted(close, key=lambda s: (-(s.best or 0.0), s.trial.number))[:most]
        default = default_of(own, arm)
        chosen += picked if default is None or default in picked else [*picked, default]
    return chosen


def repeated(states: Sequence[TrialState], experiment: Experiment, options: Options) -> list[Trial]:
    """The finalists' trainings."""
    threads = max(1, device.cores() // options.workers)
    seeds = fresh_seeds(FRESH_SEED, SEEDS)
    found = finalists(states, experiment.arms, experiment.finalists)
    return [t for s in found for t in reseeded(s.trial, seeds, place=options.device, threads=threads)]


def train(study: StudyDir, results: Path, options: Options, *, stop: Stop) -> Iterator[Status]:
    """Train the finalists of a study whose search is over; yields a Status as `replay` does, nothing without finalists.

    Trainings that ended before are not repeated, and interrupted ones go on from their checkpoints. They run on this
    machine, also after a search on a cluster; limits of the search on time and memory do not apply. Raises WorkError
    where a training keeps losing its worker, InputError where another process trains them.
    """
    file = study.study()
    if file is None or not file.experiment.finalists:
        return
    here = replace(options, engine="local", storage=None, trial_seconds=None, trial_memory=None)
    here = replace(here, workers=max(1, options.workers) if options.engine == "local" else 1)
    if trials := repeated(study.states(), file.experiment, here):
        yield from replay(trials, finalists_of(study), results, stop=stop, options=here)
