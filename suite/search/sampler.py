"""Optuna, and nothing else of the suite: one study an arm, asked and told by the controller alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from suite.errors import InputError
from suite.search.pruning import rung_step, rungs
from suite.search.storage import LEARNED
from suite.spec import Arm, Choice, Params, Pruning, Range, Record, Space, canonical_params, key_path
from suite.spec.seeds import mix

optuna.logging.set_verbosity(optuna.logging.WARNING)

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def distribution(choices: Range) -> BaseDistribution:
    return json_to_distribution(choices.distribution())


def defaults(arm: Arm, space: Space) -> Params | None:
    """The arm's own recipe as a point of the space, or None where it lies outside."""
    point: Params = {}
    for path, choices in space.items():
        node: Any = arm
        for key in key_path(path):
            node = getattr(node, key)
        inside = node in choices.values if isinstance(choices, Choice) else choices.low <= node <= choices.high
        if not inside:
            return None
        point[path] = node
    return point


class Search:
    """The search of one arm. Its trials are known by the id of the trial directory."""

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
        self.arm, self.space, self.seed, self.parallel = arm, space, seed, parallel
        self.startup = min(10, max(3, trials // 3))  # random trials before the model of the sampler counts
        self.pruning = pruning
        self.distributions = {path: distribution(choices) for path, choices in space.items()}
        self.storage, self.study_name = storage, name
        self.owner: str | None = None
        self.study = self._open()
        self._live: dict[str, optuna.Trial] = {}

    def _open(self) -> optuna.Study:
        study = optuna.create_study(
            storage=self.storage,
            study_name=self.study_name,
            direction="maximize",
            pruner=NopPruner(),  # `should_prune` below decides
            load_if_exists=True,
        )
        if self.owner is not None:
            study.set_user_attr("owner", self.owner)
        return study

    def claim(self, owner: str, *, force: bool) -> None:
        """Mark the study as that of one results directory, in a database that others may use too.

        Raises InputError where it is another's: making it agree with our trials would delete theirs.
        """
        if not force and self.study.user_attrs.get("owner", owner) != owner and self.study.get_trials(deepcopy=False):
            raise InputError(
                f"The --storage database has a study '{self.study_name}' of another results directory already; "
                "take another name with --study NAME."
            )
        self.owner = owner
        self.study.set_user_attr("owner", owner)

    def reconcile(
        self, records: dict[str, Record], params: dict[str, Params], curves: dict[str, list[tuple[float, float]]]
    ) -> bool:
        """Make the database agree with the trial directories, which are the truth: `records` of those that are over,
        `params` and `curves` of all. Says whether it had to be written anew."""
        params = {trial_id: canonical_params(found) for trial_id, found in params.items()}  # older studies may differ
        known = [t for t in self.study.get_trials(deepcopy=False) if "id" in t.user_attrs or t.state in LEARNED]
        sound = self._agrees(known, records, params)
        if not sound:
            optuna.delete_study(study_name=self.study_name, storage=self.storage)
            self.study = self._open()
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            # asked for, or about to be, but never made a trial: the controller died in between
            if frozen.user_attrs.get("id") not in params:
                self.storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
        for trial_id in sorted(params, key=_number):
            if trial_id in records:
                self.tell(records[trial_id], params[trial_id])
            else:
                self._adopt(trial_id, params[trial_id], curves[trial_id])
        return not sound

    def _agrees(self, known: list[FrozenTrial], records: dict[str, Record], params: dict[str, Params]) -> bool:
        """Whether the database says nothing else than the files, in the order of their numbers."""
        ids: list[str] = []
        for trial in known:
            trial_id = trial.user_attrs.get("id", "")
            record = records.get(trial_id)
            if trial_id not in params:
                if trial.state in LEARNED:
                    return False
                continue
            ids.append(trial_id)
            if trial.params != params[trial_id] or (record is None and trial.state.is_finished()):
                return False
            if record is not None and trial.state.is_finished():
                value = record.accuracy if _state(record) is TrialState.COMPLETE else None
                if trial.state is not _state(record) or (value is not None and trial.value != value):
                    return False
                points = {rung_step(epoch): accuracy for epoch, accuracy in record.curve}
                if any(points.get(step) != reported for step, reported in trial.intermediate_values.items()):
                    return False
        missing = params.keys() - set(ids)
        return ids == sorted(set(ids), key=_number) and all(
            _number(m) > max(map(_number, ids), default=-1) for m in missing
        )

    def params_of(self, trial_id: str) -> Params | None:
        """What the database remembers of a trial whose own file is damaged."""
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.user_attrs.get("id") == trial_id:
                return dict(frozen.params)
        return None

    def ask(self, made: int) -> tuple[optuna.Trial, Params]:
        """The next point, after `made` trials: the arm's own defaults first, then what the sampler says."""
        if made == 0 and self.space and (point := defaults(self.arm, self.space)):
            self.study.enqueue_trial(point)
        # Seeded by how many there are: a resumed search goes on as the uninterrupted one, and never repeats itself.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=mix(self.seed, made) % 2**32, n_startup_trials=self.startup, constant_liar=self.parallel
        )
        trial = self.study.ask(self.distributions)
        return trial, dict(trial.params)

    def name(self, trial: optuna.Trial, trial_id: str) -> None:
        """Tie an asked point to its directory."""
        trial.set_user_attr("id", trial_id)
        self._live[trial_id] = trial

    def _adopt(self, trial_id: str, params: Params, curve: list[tuple[float, float]]) -> None:
        """Take up an unfinished trial of an earlier controller, known to the database or not."""
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

    def _at_rungs(self, curve: Iterable[tuple[float, float]]) -> dict[int, float]:
        points = dict(curve)
        reached = rungs(self.pruning, max(points, default=0.0) + 1)
        return {rung_step(epoch): points[epoch] for epoch in reached if epoch in points}

    def should_prune(self, trial_id: str, epoch: float, accuracy: float) -> bool:
        """Successive halving: of this trial and those before it that came this far, the best 1/factor go on.

        Decided from their reported values alone, so that one that is run again is judged again, and alike.
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
        """Enter what a trial came to; once is enough, more does no harm."""
        trial = self._live.pop(record.trial, None)
        if trial is None:
            known = {t.user_attrs.get("id"): t for t in self.study.get_trials(deepcopy=False)}.get(record.trial)
            if known is None:
                self._add(record, canonical_params(params))
                return
            if known.state.is_finished():
                return
            trial = optuna.Trial(self.study, known._trial_id)
        state = _state(record)
        if state is TrialState.COMPLETE:
            self.study.tell(trial, record.accuracy)
        else:
            self.study.tell(trial, state=state)

    def _add(self, record: Record, params: Params) -> None:
        """Rebuild a trial that the database has lost."""
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


def _number(trial_id: str) -> int:
    return int(trial_id.partition("-")[0])


def _state(record: Record) -> TrialState:
    """What the sampler is told; one that was pruned before its first evaluation has nothing to teach it."""
    if record.state == "finished":
        return TrialState.COMPLETE
    return TrialState.PRUNED if record.state == "pruned" and record.curve else TrialState.FAIL
