"""The search of one arm with Optuna: ask for parameters, judge at rungs, tell results.

Each arm is an Optuna study of its own, sampled by TPE (Bergstra et al., 2011, "Algorithms for Hyper-Parameter
Optimization"; https://optuna.readthedocs.io/en/stable/reference/samplers/) and pruned by asynchronous successive
halving (Li et al., arXiv:1810.05934). Only the controller calls this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from suite.errors import InputError
from suite.search.pruning import rung_step, rungs
from suite.search.storage import damage_detected
from suite.spec import Arm, Choice, LogFloat, Params, Pruning, Range, Record, Space
from suite.spec.seeds import mix

optuna.logging.set_verbosity(optuna.logging.WARNING)

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

INFORMATIVE = (TrialState.COMPLETE, TrialState.PRUNED)  # what the sampler learns from

Curve = list[tuple[float, float]]  # (epoch, validation accuracy)


def distribution(choices: Range) -> BaseDistribution:
    """A range of the search space as Optuna's distribution."""
    if isinstance(choices, Choice):
        return CategoricalDistribution(choices.values)
    return FloatDistribution(choices.low, choices.high, log=isinstance(choices, LogFloat))


def defaults(arm: Arm, space: Space) -> Params | None:
    """The arm's own recipe as a point of the space, or None where it lies outside."""
    point: Params = {}
    for path, choices in space.items():
        node: Any = arm
        for key in path.split(".") if "." in path or path in Arm.model_fields else ["recipe", path]:
            node = getattr(node, key)
        inside = node in choices.values if isinstance(choices, Choice) else choices.low <= node <= choices.high
        if not inside:
            return None
        point[path] = node
    return point


class Search:
    """The search of one arm. Trials are identified by the name of their directory, as a user attribute in Optuna."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        arm: Arm,
        space: Space,
        pruning: Pruning | None,
        *,
        seed: int,
        trials: int,
        parallel: bool,
    ) -> None:
        """Open or create the Optuna study `name` and read its trials.

        `trials` is the arm's number of trials, of which the first third (3 to 10) is drawn at random. `parallel`:
        whether several trials run at once, so that TPE counts those under way as bad ("constant liar").
        Raises DamagedDatabase where the content of the storage makes no sense.
        """
        self.arm, self.space, self.seed, self.parallel = arm, space, seed, parallel
        self.startup = min(10, max(3, trials // 3))
        self.pruning = pruning
        self.distributions = {path: distribution(choices) for path, choices in space.items()}
        self.storage, self.study_name = storage, name
        self.study = self._open()
        self._live: dict[str, optuna.Trial] = {}  # trials without a result, by id

    def _open(self) -> optuna.Study:
        with damage_detected():
            study = optuna.create_study(
                storage=self.storage,
                study_name=self.study_name,
                direction="maximize",
                pruner=NopPruner(),  # `should_prune` decides
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
        self, records: Mapping[str, Record], params: Mapping[str, Params], curves: Mapping[str, Curve]
    ) -> bool:
        """Make the database agree with the trial directories, which are authoritative.

        `records` are those of the trials that have ended, `params` and `curves` those of all trials, by id. Where the
        database contradicts them, it is deleted and written anew. Returns whether it was.
        """
        known = [t for t in self.study.get_trials(deepcopy=False) if "id" in t.user_attrs or t.state in INFORMATIVE]
        sound = agrees(known, records, params)
        if not sound:
            self._clear()
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            # asked for or enqueued, but the controller died before it made a trial of it
            if frozen.user_attrs.get("id") not in params:
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
        for trial_id in sorted(params, key=_number):
            if trial_id in records:
                self.tell(records[trial_id], params[trial_id])
            else:
                self._adopt(trial_id, params[trial_id], curves[trial_id])
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

    def _adopt(self, trial_id: str, params: Params, curve: Curve) -> None:
        """Go on with an unfinished trial of an earlier controller, known to the database or not."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get("id") == trial_id:
                self._live[trial_id] = optuna.Trial(self.study, frozen._trial_id)
                return
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=dict(params),
                distributions=self.distributions,
                user_attrs={"id": trial_id},
                intermediate_values=self._at_rungs(curve),
            )
        )
        self._live[trial_id] = optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[-1]._trial_id)

    def _add(self, record: Record, params: Params) -> None:
        """Enter a trial that has ended and that the database does not know."""
        state = _state(record)
        self.study.add_trial(
            create_trial(
                state=state,
                value=record.accuracy if state is TrialState.COMPLETE else None,
                params=dict(params),
                distributions=self.distributions,
                user_attrs={"id": record.trial},
                intermediate_values=self._at_rungs(record.curve[:-1] if record.state == "finished" else record.curve),
            )
        )

    def _at_rungs(self, curve: Iterable[tuple[float, float]]) -> dict[int, float]:
        """The points of a curve that were reported to Optuna: accuracy by Optuna's step."""
        points = dict(curve)
        reached = rungs(self.pruning, max(points, default=0.0) + 1)
        return {rung_step(epoch): points[epoch] for epoch in reached if epoch in points}

    # --- one trial ---

    def ask(self, made: int) -> tuple[optuna.Trial, Params]:
        """The next parameters, after `made` trials: the arm's own defaults first, then what the sampler suggests."""
        if made == 0 and self.space and (point := defaults(self.arm, self.space)):
            self.study.enqueue_trial(point)
        # Seeded by the number of trials: a resumed search goes on as the uninterrupted one would, and draws no
        # parameters twice.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=mix(self.seed, made) % 2**32, n_startup_trials=self.startup, constant_liar=self.parallel
        )
        trial = self.study.ask(self.distributions)
        return trial, dict(trial.params)

    def register(self, trial: optuna.Trial, trial_id: str) -> None:
        """Give the trial that was asked for the id of its directory."""
        trial.set_user_attr("id", trial_id)
        self._live[trial_id] = trial

    def should_prune(self, trial_id: str, epoch: float, accuracy: float) -> bool:
        """Successive halving: of this trial and those of lower number that reached this rung, the best 1/factor go on.

        Depends on the values reported at this rung alone, so a trial that repeats a rung after an interruption gets
        the same verdict again.
        """
        assert self.pruning is not None
        trial, step = self._live[trial_id], rung_step(epoch)
        values = [accuracy]
        for other in self.study.get_trials(deepcopy=False):
            other_id = other.user_attrs.get("id")
            if other_id == trial_id:
                if step not in other.intermediate_values:
                    trial.report(accuracy, step)
            elif other_id and step in other.intermediate_values and _number(other_id) < _number(trial_id):
                values.append(other.intermediate_values[step])
        places = max(1, len(values) // self.pruning.factor)
        return accuracy < sorted(values, reverse=True)[places - 1]

    def tell(self, record: Record, params: Params) -> None:
        """Report the trial's result to Optuna. Idempotent."""
        trial = self._live.pop(record.trial, None)
        if trial is None:
            known = {t.user_attrs.get("id"): t for t in self.study.get_trials(deepcopy=False)}.get(record.trial)
            if known is None:
                self._add(record, params)
                return
            if known.state.is_finished():
                return
            trial = optuna.Trial(self.study, known._trial_id)
        state = _state(record)
        if state is TrialState.COMPLETE:
            self.study.tell(trial, record.accuracy)
        else:
            self.study.tell(trial, state=state)


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
    points = {rung_step(epoch): accuracy for epoch, accuracy in record.curve}
    return all(points.get(step) == reported for step, reported in trial.intermediate_values.items())


def _number(trial_id: str) -> int:
    return int(trial_id.partition("-")[0])


def _state(record: Record) -> TrialState:
    """The state that Optuna is told. A trial pruned before its first evaluation counts as failed: it has no value."""
    if record.state == "finished":
        return TrialState.COMPLETE
    return TrialState.PRUNED if record.state == "pruned" and record.curve else TrialState.FAIL
