"""Optuna, and nothing else of the suite: one study an arm, asked and told by the controller alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState, create_trial

from suite.errors import InputError
from suite.spec import Arm, Choice, LogFloat, Params, Pruning, Range, Record, Space
from suite.train import mix

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_storage(database: Path, url: str | None) -> BaseStorage:
    """SQLite in WAL mode beside the trials, or whatever `url` names. Raises InputError, never showing the URL."""
    if url is None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        storage = RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": 60}})

        @event.listens_for(storage.engine, "connect")
        def _durable_and_concurrent(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        assert isinstance(storage.engine, Engine)
        storage.engine.dispose()  # so that the pragmas hold from the next connection on
        return storage
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:  # SQLAlchemy's and each driver's own kinds
        raise InputError(
            f"The --storage URL cannot be used ({type(error).__name__}). It should look like "
            "postgresql+psycopg://user@host/database, with the driver installed and the server up."
        ) from None


def rungs(pruning: Pruning | None, epochs: int) -> tuple[int, ...]:
    """Epochs after which a trial of so many may be pruned: first, first * factor, ... below the last."""
    if pruning is None:
        return ()
    found: list[int] = []
    epoch = pruning.first
    while epoch < epochs:
        found.append(epoch)
        epoch *= pruning.factor
    return tuple(found)


def distribution(choices: Range) -> BaseDistribution:
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
        pruner: BasePruner = NopPruner()
        if pruning is not None:
            pruner = SuccessiveHalvingPruner(
                min_resource=pruning.first, reduction_factor=pruning.factor, min_early_stopping_rate=0
            )
        self.distributions = {path: distribution(choices) for path, choices in space.items()}
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
        )
        self._live: dict[str, optuna.Trial] = {}

    def ids(self) -> set[str]:
        """Trial ids that the database knows."""
        return {t.user_attrs["id"] for t in self.study.get_trials(deepcopy=False) if "id" in t.user_attrs}

    def ask(self) -> tuple[optuna.Trial, Params]:
        """The next point: the arm's own defaults first, then what the sampler says."""
        count = len(self.study.get_trials(deepcopy=False))
        if count == 0 and self.space and (point := defaults(self.arm, self.space)):
            self.study.enqueue_trial(point)
        # Seeded by how many there are: a resumed search goes on as the uninterrupted one, and never repeats itself.
        self.study.sampler = optuna.samplers.TPESampler(
            seed=mix(self.seed, count) % 2**32, n_startup_trials=self.startup, constant_liar=self.parallel
        )
        trial = self.study.ask(self.distributions)
        return trial, dict(trial.params)

    def name(self, trial: optuna.Trial, trial_id: str) -> None:
        """Tie an asked point to its directory."""
        trial.set_user_attr("id", trial_id)
        self._live[trial_id] = trial

    def adopt(self, trial_id: str, params: Params) -> None:
        """Take up an unfinished trial of an earlier controller, known to the database or not."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get("id") == trial_id:
                self._live[trial_id] = optuna.Trial(self.study, frozen._trial_id)
                return
        self.study.enqueue_trial(params)
        self.name(self.study.ask(self.distributions), trial_id)

    def abandon_orphans(self, known: set[str]) -> None:
        """Points that were asked for but never became a trial: their controller died in between."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get("id") not in known:
                self.study.tell(frozen.number, state=TrialState.FAIL)

    def should_prune(self, trial_id: str, epoch: int, accuracy: float) -> bool:
        """Report an intermediate accuracy and ask the pruner."""
        trial = self._live[trial_id]
        trial.report(accuracy, epoch)
        return trial.should_prune()

    def tell(self, record: Record, params: Params) -> None:
        """Enter what a trial came to; once is enough, more does no harm."""
        trial = self._live.pop(record.trial, None)
        if trial is None:
            if record.trial in self.ids():
                known = {t.user_attrs.get("id"): t for t in self.study.get_trials(deepcopy=False)}[record.trial]
                if known.state.is_finished():
                    return
                trial = optuna.Trial(self.study, known._trial_id)
            else:
                self._add(record, params)
                return
        if record.state == "finished":
            self.study.tell(trial, record.accuracy)
        elif record.state == "pruned" and record.curve:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _add(self, record: Record, params: Params) -> None:
        """Rebuild a trial that the database has lost."""
        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        state = states[record.state]
        if state is TrialState.PRUNED and not record.curve:
            state = TrialState.FAIL
        self.study.add_trial(
            create_trial(
                state=state,
                value=record.accuracy if state is TrialState.COMPLETE else None,
                params=dict(params),
                distributions=self.distributions,
                user_attrs={"id": record.trial},
                intermediate_values=dict(record.curve),
            )
        )
