"""The search of one arm: which parameters come next, and what Optuna is told of them.

Each arm is an Optuna study of its own, so that Optuna's tools read it and any of its samplers and pruners can take the
place of the suite's (`Experiment.sampler`, `Experiment.pruner`). Only the controller calls this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from suite.errors import InputError
from suite.search.quasi_random import point
from suite.search.storage import damage_detected
from suite.spec import (
    Arm,
    Choice,
    Experiment,
    Params,
    Plugin,
    Range,
    Record,
    Space,
    canonical_params,
    combinations,
    key_path,
)
from suite.spec.seeds import mix

optuna.logging.set_verbosity(optuna.logging.WARNING)

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

INFORMATIVE = (TrialState.COMPLETE, TrialState.PRUNED)  # what the sampler learns from

Points = list[tuple[float, float]]  # (epochs, validation accuracy)

TRIES = 20  # times that one of Optuna's samplers is asked for parameters that no trial has had


def distribution(choices: Range) -> BaseDistribution:
    """A range of the search space as Optuna's distribution."""
    return json_to_distribution(choices.distribution())


def step_of(epochs: float) -> int:
    """The step under which an accuracy is reported to Optuna, whose steps are integers: hundredths of an epoch."""
    return round(100 * epochs)


def sampler_of(plugin: Plugin, seed: int) -> BaseSampler:
    """One of Optuna's samplers. Raises InputError where there is none of that name or it does not take the options."""
    return _made(plugin, optuna.samplers, BaseSampler, "sampler", {"seed": seed})


def pruner_of(plugin: Plugin | None) -> BasePruner:
    """One of Optuna's pruners, which never prunes for None. Raises InputError as `sampler_of` does."""
    return NopPruner() if plugin is None else _made(plugin, optuna.pruners, BasePruner, "pruner", {})


def _made(plugin: Plugin, module: Any, base: type, what: str, defaults: dict[str, Any]) -> Any:
    kind = getattr(module, plugin.name, None)
    if not isinstance(kind, type) or not issubclass(kind, base):
        known = [n for n in dir(module) if isinstance(c := getattr(module, n), type) and issubclass(c, base)]
        known = ", ".join(n for n in known if not n.startswith("Base"))
        raise InputError(f"Optuna has no {what} '{plugin.name}'; it has: {known}.")
    wrong: Exception | None = None
    for extra in (defaults, {}):  # not every sampler takes a seed
        try:
            return kind(**{**extra, **plugin.options})
        except (TypeError, ValueError) as error:
            wrong = error
    raise InputError(f"Optuna's {plugin.name} cannot be made with {plugin.options}: {wrong}.")


def given(arm: Arm, space: Space) -> list[Params]:
    """The points of the space that an arm gives: its own recipe, then those of `Arm.first`, as far as inside."""
    own: Params = {}
    for path in space:
        node: Any = arm
        for key in key_path(path):
            node = getattr(node, key)
        own[path] = node
    found: list[Params] = []
    for params in (own, *(canonical_params(first) for first in arm.first)):
        if _inside(params, space) and params not in found:
            found.append(params)
    return found


def _inside(params: Params, space: Space) -> bool:
    """Whether these are values for all ranges of the space, each in its range."""
    if params.keys() != space.keys():
        return False
    for path, choices in space.items():
        value = params[path]
        if isinstance(choices, Choice):
            if value not in choices.values:
                return False
        elif not isinstance(value, int | float) or not choices.low <= value <= choices.high:
            return False
    return True


class Search:
    """The search of one arm. Trials are identified by the name of their directory, as a user attribute in Optuna."""

    def __init__(self, storage: BaseStorage, name: str, experiment: Experiment, arm: str, *, parallel: bool) -> None:
        """Open or create the Optuna study `name` for an arm of the experiment, and read its trials.

        `parallel`: whether several trials run at once, so that TPE counts those under way as bad ("constant liar").
        Raises DamagedDatabase where the content of the storage makes no sense.
        """
        self.experiment, self.arm, self.space = experiment, experiment.arms[arm], experiment.space_of(arm)
        self.seed, self.parallel = mix(experiment.seed, list(experiment.arms).index(arm)), parallel
        self.distributions = {path: distribution(choices) for path, choices in self.space.items()}
        self.storage, self.study_name = storage, name
        self.study = self._open()
        self._live: dict[str, int] = {}  # Optuna's numbers of the trials without a result, by id

    def _open(self) -> optuna.Study:
        with damage_detected():
            study = optuna.create_study(
                storage=self.storage,
                study_name=self.study_name,
                direction="maximize",
                pruner=pruner_of(self.experiment.pruner),
                load_if_exists=True,
            )
            study.get_trials(deepcopy=False)  # reads all of them, and keeps those that have ended
        return study

    def claim(self, owner: str, *, force: bool) -> None:
        """Mark the study as that of one results directory, in a database that others may use too.

        Raises InputError where it belongs to another: `reconcile` would delete the trials of that one. `force` claims
        it all the same.
        """
        if not force and self.study.user_attrs.get("owner", owner) != owner and self.study.get_trials(deepcopy=False):
            raise InputError(
                f"The --storage database has a study '{self.study_name}' of another results directory already; "
                "take another name with --study NAME."
            )
        self.study.set_user_attr("owner", owner)

    # --- agreement with the trial directories ---

    def reconcile(
        self, records: Mapping[str, Record], params: Mapping[str, Params], rungs: Mapping[str, Points]
    ) -> bool:
        """Make the database agree with the trial directories, which are authoritative.

        `records` are those of the trials that have ended, `params` and `rungs` those of all trials, by id. Where the
        database contradicts them, it is deleted and written anew. Returns whether it was.
        """
        params = {trial_id: canonical_params(found) for trial_id, found in params.items()}  # older studies may differ
        trials = self.study.get_trials(deepcopy=False)
        known = [t for t in trials if "id" in t.user_attrs or t.state in INFORMATIVE]
        sound = agrees(known, records, params)
        if not sound:
            self._clear()
            trials = []
        there = {t.user_attrs["id"]: t for t in trials if t.user_attrs.get("id") in params}
        for frozen in trials:  # asked for, but the controller died before it made a trial of it
            if not frozen.state.is_finished() and frozen.user_attrs.get("id") not in params:
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
        for trial_id in sorted(params, key=_number):
            if trial_id in there:
                if not there[trial_id].state.is_finished():
                    self._live[trial_id] = there[trial_id]._trial_id
            else:
                self._enter(trial_id, params[trial_id], rungs.get(trial_id, []))
            if trial_id in records:
                self.tell(records[trial_id])
        return not sound

    def _clear(self) -> None:
        """Begin again with an empty study."""
        attributes = self.study.user_attrs
        optuna.delete_study(study_name=self.study_name, storage=self.storage)
        self.study = self._open()
        for key, value in attributes.items():
            self.study.set_user_attr(key, value)

    def params_of(self, trial_id: str) -> Params | None:
        """The parameters of a trial as the database has them, for a trial whose own file is damaged."""
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.user_attrs.get("id") == trial_id:
                return dict(frozen.params)
        return None

    def _enter(self, trial_id: str, params: Params, rungs: Points) -> None:
        """Add a trial without a result, in one transaction."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=self.distributions,
            user_attrs={"id": trial_id},
            intermediate_values={step_of(epochs): accuracy for epochs, accuracy in rungs},
        )
        self._live[trial_id] = self.storage.create_new_trial(self.study._study_id, template_trial=template)

    # --- one trial ---

    def ask(self, made: int) -> Params:
        """The parameters of the arm's next trial, after `made` trials: first those that the arm gives.

        Then the suite's points or those of one of Optuna's samplers, which avoids what was tried before.
        """
        first = given(self.arm, self.space)
        if made < len(first):
            return first[made]
        count = combinations(self.space)
        if count is not None:  # none comes twice before all have come
            points = [point(self.space, self.seed, n) for n in range(count)]
            return [*first, *(p for p in points if p not in first)][made % count]
        if self.experiment.sampler is None:
            return point(self.space, self.seed, made - len(first))
        return self._asked(self.experiment.sampler, made)

    def _asked(self, plugin: Plugin, made: int) -> Params:
        options = dict(plugin.options)
        if plugin.name == "TPESampler":
            options.setdefault("constant_liar", self.parallel)
        plugin = plugin.model_copy(update={"options": options})
        # Seeded by the number of trials: a resumed search goes on as the uninterrupted one would.
        self.study.sampler = sampler_of(plugin, mix(self.seed, made) % 2**32)
        had = [t.params for t in self.study.get_trials(deepcopy=False) if "id" in t.user_attrs]
        params: Params = {}
        for _ in range(TRIES):
            trial = self.study.ask(self.distributions)
            params = dict(trial.params)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # entered with its id by `register`
            if params not in had:
                break
        return params

    def register(self, trial_id: str, params: Params) -> None:
        """Tell Optuna of a new trial, by the name of its directory."""
        self._enter(trial_id, params, [])

    def report(self, trial_id: str, epochs: float, accuracy: float) -> None:
        """Tell Optuna the accuracy after a short training, or in the course of one that a pruner watches."""
        number = self._live[trial_id]
        if step_of(epochs) not in self.storage.get_trial(number).intermediate_values:
            self.storage.set_trial_intermediate_value(number, step_of(epochs), accuracy)

    def should_prune(self, trial_id: str, epoch: float, accuracy: float) -> bool:
        """The verdict of the experiment's Optuna pruner after an epoch."""
        self.report(trial_id, epoch, accuracy)
        return optuna.Trial(self.study, self._live[trial_id]).should_prune()

    def tell(self, record: Record) -> None:
        """Tell Optuna a trial's result. Idempotent."""
        number = self._live.pop(record.trial, None)
        if number is None:
            return
        state = _state(record)
        values = None
        if state is TrialState.COMPLETE:
            assert record.accuracy is not None
            values = [record.accuracy]
        elif state is TrialState.PRUNED:  # Optuna's value of a pruned trial is the last that was reported
            values = [(record.rungs or record.curve)[-1][1]]
        self.storage.set_trial_state_values(number, state, values)


def agrees(known: list[FrozenTrial], records: Mapping[str, Record], params: Mapping[str, Params]) -> bool:
    """Whether the database's trials contradict the trial directories in nothing, and lie in the order of their numbers.

    Trials at the end that the database lacks are no contradiction: they are added.
    """
    ids: list[str] = []
    for trial in known:
        trial_id = trial.user_attrs.get("id", "")
        if trial_id not in params:
            if trial.state in INFORMATIVE:
                return False
            continue
        ids.append(trial_id)
        if not _agrees(trial, records.get(trial_id), params[trial_id]):
            return False
    missing = params.keys() - set(ids)
    newest = max(map(_number, ids), default=-1)
    return ids == sorted(set(ids), key=_number) and all(_number(trial_id) > newest for trial_id in missing)


def _agrees(trial: FrozenTrial, record: Record | None, params: Params) -> bool:
    """Whether one trial of the database is what its directory says."""
    ended = trial.state.is_finished()
    if trial.params != params or (record is None and ended):
        return False
    if record is None or not ended:
        return True
    value = record.accuracy if _state(record) is TrialState.COMPLETE else None
    if trial.state is not _state(record) or (value is not None and trial.value != value):
        return False
    points = {step_of(epoch): accuracy for epoch, accuracy in (*record.curve, *record.rungs)}
    return all(points.get(step) == reported for step, reported in trial.intermediate_values.items())


def _number(trial_id: str) -> int:
    return int(trial_id.partition("-")[0])


def _state(record: Record) -> TrialState:
    """The state that Optuna is told. A trial pruned before its first evaluation counts as failed: it has no value."""
    if record.state == "finished":
        return TrialState.COMPLETE
    return TrialState.PRUNED if record.state == "pruned" and record.curve else TrialState.FAIL
