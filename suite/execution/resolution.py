"""From an arm and the parameters that a search chose to a trial, with everything that its training needs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from suite.data.datasets import describe
from suite.data.splits import Info
from suite.errors import InputError
from suite.execution.plan import pretrainings_of
from suite.execution.weights import teacher_of, weights_of
from suite.models.heads import by_gradient
from suite.models.preprocessing import of_arm
from suite.search.pruning import stages
from suite.spec import (
    AS_TRAINED,
    FROM_RANDOM,
    Arm,
    Experiment,
    HeadOnly,
    Int8,
    Params,
    Preprocess,
    Teacher,
    Trial,
    Weights,
    first_error,
    resolved,
)
from suite.spec.seeds import mix
from suite.store.study import StudyDir


class TrialResolver:
    """Makes the trials of one study."""

    def __init__(self, experiment: Experiment, study: str, results: Path, *, device: str, threads: int) -> None:
        """`results` is where weights are looked up; `threads` is for each trial."""
        self.experiment, self.study, self.results = experiment, study, results
        self.device, self.threads = device, threads
        self.quota = experiment.quota()
        self._infos: dict[float, Info] = {}  # by fraction of the training labels

    def trial(self, name: str, params: Params, number: int) -> Trial:
        """The trial of arm `name` with `params`. Raises InputError where they do not fit the arm."""
        experiment = self.experiment
        try:
            arm = resolved(experiment.arms[name], params)
        except ValueError as error:
            raise InputError(f"Arm '{name}' cannot take {params}: {first_error(error)}") from None
        info = self._info(arm.fraction)
        searched = self.quota[name] > 1  # a single trial has nothing to be compared with
        return Trial(
            study=self.study,
            arm=name,
            number=number,
            dataset=experiment.dataset,
            data_hash=info.data_hash,
            split_hash=info.split_hash,
            fraction=arm.fraction,
            limit=experiment.limit,
            backbone=arm.backbone,
            weights=self._weights(arm),
            size=arm.size,
            strategy=arm.strategy,
            recipe=arm.recipe,
            params=params,
            seed=mix(experiment.seed, 7) % 2**31,  # one seed for all: trials differ by their parameters alone
            device=self.device,
            threads=self.threads,
            rungs=tuple(float(e) for e in range(1, arm.recipe.epochs)) if searched and experiment.pruner else (),
            stages=stages(experiment.pruning, arm.recipe.epochs) if searched and self._prunes(arm) else (),
            caps=experiment.caps,
            preprocess=self._expects(arm, info),
            teacher=self._teacher(arm),
        )

    def _prunes(self, arm: Arm) -> bool:
        """Whether trials of an arm begin with short trainings. Solved heads and quantisation have none."""
        solved = isinstance(arm.strategy, HeadOnly) and not by_gradient(arm.strategy.head)
        return self.experiment.pruner is None and not solved and not isinstance(arm.strategy, Int8)

    def _expects(self, arm: Arm, info: Info) -> Preprocess:
        """The model's input: that of the trial which a compressed model was trained in, else that of the arm."""
        if arm.strategy.kind in AS_TRAINED and arm.weights is not None:
            with contextlib.suppress(InputError):  # the weights are no trial's
                return teacher_of(self._named(arm.weights), self.results).preprocess
        return of_arm(arm, info)

    def _info(self, fraction: float) -> Info:
        if fraction not in self._infos:
            experiment = self.experiment
            self._infos[fraction] = describe(experiment.dataset, fraction=fraction, limit=experiment.limit).info
        return self._infos[fraction]

    def _weights(self, arm: Arm) -> Weights | None:
        if arm.strategy.kind in FROM_RANDOM or arm.weights is None:
            return None
        return weights_of(self._named(arm.weights), self.results)

    def _teacher(self, arm: Arm) -> Teacher | None:
        if arm.teacher is None:
            return None
        own = arm.teacher == "experiment"
        names = ",".join(plan.name for plan in pretrainings_of(self.experiment)) if own else arm.teacher
        return teacher_of(names, self.results)

    def _named(self, reference: str) -> str:
        return pretrainings_of(self.experiment)[0].name if reference == "experiment" else reference


def check_fit(experiment: Experiment, trial: Trial, directory: StudyDir) -> None:
    """Raises InputError unless the experiment, with the parameters of this trial, gives this trial."""
    with contextlib.suppress(ValueError, KeyError):
        arm = resolved(experiment.arms[trial.arm], trial.params)
        wanted = (experiment.dataset, arm.backbone, arm.size, arm.strategy, arm.recipe, arm.fraction)
        if wanted == (trial.dataset, trial.backbone, trial.size, trial.strategy, trial.recipe, trial.fraction):
            return
    raise InputError(
        f"Trial {trial.id} in {directory.path} was made by another experiment than the one given. "
        "Nothing was touched; give the one it began with, or another --study NAME."
    )
