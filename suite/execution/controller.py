"""The controller of a study: the only process that asks, tells and prunes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from suite.data.datasets import search_splits
from suite.data.splits import Info
from suite.errors import InputError, WorkError, printable
from suite.execution.job import Executor, Job, Message, awaits_verdict
from suite.execution.plan import Options, pretraining_of, weights_of
from suite.hardware import device
from suite.search.pruning import rungs
from suite.search.sampler import Search
from suite.search.storage import is_damage, open_storage, set_aside
from suite.spec import (
    FROM_RANDOM,
    Arm,
    Evaluated,
    Experiment,
    Line,
    Params,
    Provenance,
    Record,
    Space,
    Started,
    Status,
    StudyFile,
    Trial,
    Weights,
    first_error,
    resolved,
)
from suite.spec.seeds import mix
from suite.store import repair
from suite.store.files import write_model
from suite.store.provenance import packages, version
from suite.store.study import StudyDir
from suite.store.trial import TrialDir, TrialState
from suite.training.checkpoint import clear
from suite.training.record import provenance

MAX_ATTEMPTS = 3  # a trial that loses its worker so often fails

MAX_SAME_FAILURES = 5  # in a row, of one cause: then the study stops rather than burn the rest

HEARTBEAT_SECONDS = 2.0


@dataclass
class Stop:
    """Set by a signal handler; the controller looks at it."""

    reason: str | None = None
    heeded: bool = False  # the controller is at work and looks: before that, nothing is under way to be put down


class Controller:
    def __init__(
        self, experiment: Experiment, results: Path, directory: StudyDir, options: Options, stop: Stop
    ) -> None:
        self.results, self.directory, self.options, self.stop = results, directory, options, stop
        self.notes: list[str] = []  # what was found damaged, and mended
        self.owner = ""  # stands for this results directory in a database that others may use too
        self.reopened = False  # study.json had to be written anew
        self.experiment = self._open(experiment)
        self.quota = self.experiment.quota()
        executor: Executor | None = None
        try:
            self.executor = executor = options.executor(results)
            self.searches = self._remember()
        except BaseException as error:
            if executor is not None:
                executor.close()
            if isinstance(error, InputError) and not directory.trials():
                (directory.path / "study.json").unlink()  # or the next try, with another name or not, would find it
            raise
        self.workers = 1 if options.population != 1 else self.executor.slots
        self.states: dict[str, TrialState] = {}
        self.attempts: Counter[str] = Counter()
        self.tokens: dict[str, str] = {}  # the attempt that counts
        self.waiting: list[str] = []  # unfinished trials to run again
        self.infos: dict[float, Info] = {}
        self.started, self.pid, self.host = time.time(), os.getpid(), socket.gethostname()
        self.walls: dict[str, list[float]] = {name: [] for name in self.quota}
        self.same_failures: tuple[str, int] = ("", 0)
        self.message = ""
        self.arm = ""  # of the newest trial
        self.ended = False
        self.spoke = False  # has written status.json

    def _remember(self) -> dict[str, Search]:
        """The sampler's memory; a database that is damaged is set aside and written anew from the trials."""
        try:
            return self._searches()
        except Exception as error:  # a database of arbitrary content: Optuna and SQLAlchemy raise whatever fails first
            if self.options.storage is not None or isinstance(error, OSError) or not is_damage(error):
                raise
            set_aside(self.directory.database)
            self.notes.append("optuna.db was damaged: it is now optuna.db.damaged, rebuilt from the trials")
            return self._searches()

    def _searches(self) -> dict[str, Search]:
        storage = open_storage(self.directory.database, self.options.storage)
        searches = {
            name: Search(
                storage,
                f"{self.directory.name}/{name}",
                arm,
                self._space(arm),
                self.experiment.pruning,
                seed=mix(self.experiment.seed, number),
                trials=self.quota[name],
                parallel=self.executor.slots > 1,
            )
            for number, (name, arm) in enumerate(self.experiment.arms.items())
        }
        for search in searches.values():
            if self.options.storage is not None:
                search.claim(self.owner, force=self.reopened)
            search.params_of("")  # reads everything once
        return searches

    def _space(self, arm: Arm) -> Space:
        return {**self.experiment.space, **arm.space}

    # --- beginning ---

    def _open(self, experiment: Experiment) -> Experiment:
        """A new study's file, or the old one checked against what is asked now."""
        options, directory = self.options, self.directory
        old = directory.study()
        if old is None and (directory.exists() or directory.trials()):
            self._reopen(experiment)
        if old is not None:
            done = sum(s.record is not None for s in directory.states())
            if not options.resume:
                raise InputError(
                    f"Study '{directory.name}' already exists in {self.results} with {done} of "
                    f"{old.experiment.trials} trials done. Go on with --resume, or take another name with --study NAME."
                )
            _same_question(old.experiment, experiment, directory.name)
            if experiment.trials < len(directory.states()):
                raise InputError(
                    f"Study '{directory.name}' already has {len(directory.states())} trials; --trials "
                    f"{experiment.trials} would throw some away. Ask for at least as many."
                )
        info = search_splits(experiment.dataset, limit=experiment.limit).info
        if old is not None and old.data_hash != info.data_hash:
            raise InputError(f"The data of '{experiment.dataset}' have changed since study '{directory.name}' began.")
        created = old.created if old else time.time()
        self.owner = repr(created)
        if old is None or old.experiment != experiment:
            write_model(
                directory.path / "study.json",
                StudyFile(
                    study=directory.name,
                    created=created,
                    experiment=experiment,
                    data_hash=info.data_hash,
                    split_hash=info.split_hash,
                    classes=info.classes,
                    version=version(),
                    packages=packages(),
                    storage="sqlite" if options.storage is None else "external",
                ),
            )
        return experiment

    def _reopen(self, experiment: Experiment) -> None:
        """Trials are there but study.json is damaged or gone: it may be written anew if they fit. Raises InputError."""
        directory = self.directory
        path = directory.path / "study.json"
        _refuse_newer(path)
        if not self.options.resume:
            raise InputError(
                f"Study '{directory.name}' has {len(directory.trials())} trials but no readable study.json. "
                "Have it written anew with --resume, or take another name with --study NAME."
            )
        for trial_directory in directory.trials():
            if trial_directory.sound() and (trial := trial_directory.trial()) is not None:
                self._check_fit(experiment, trial)
        self.reopened = True
        self.notes.append("study.json was damaged or gone: written anew from the experiment")

    def _mend(self) -> None:
        """Put right or set aside what was damaged while no controller was here."""
        for directory in self.directory.trials():
            if not directory.sound():
                _refuse_newer(directory.path / "trial.json")
                if self._restored(directory):
                    self.notes.append(f"trial.json of {directory.id} was damaged: written anew")
                elif all(path.name.lstrip(".").startswith("trial.json") for path in directory.path.iterdir()):
                    shutil.rmtree(directory.path)  # its controller died while making it
                    continue
                else:
                    kept = repair.put_away(self.directory, directory)
                    self.notes.append(f"trial {directory.id} was damaged beyond repair: it is in {kept}")
                    continue
            if fault := repair.result_fault(directory):
                _refuse_newer(directory.path / "result.json")
                repair.aside(directory.path / "result.json")
                self.notes.append(f"result.json of {directory.id} {fault}: the trial runs again")
            elif directory.record() is not None:
                clear(directory.path)  # its worker may have died between its result and this

    def _restored(self, directory: TrialDir) -> bool:
        """Write a damaged trial.json anew from the database; the directory's name proves that it is the same."""
        number = directory.id.partition("-")[0]
        for arm, search in self.searches.items():
            params = search.params_of(directory.id)
            if params is not None and number.isdigit():
                with contextlib.suppress(InputError):
                    trial = self._trial(arm, params, int(number))
                    if trial.id == directory.id:
                        directory.create(trial)
                        return True
        return False

    def _reconcile(self) -> None:
        """Make the sampler's memory agree with the trial directories, which are the truth."""
        self._mend()
        self.states = {state.id: state for state in self.directory.states()}
        for state in self.states.values():
            self._check_fit(self.experiment, state.trial)
        for arm, search in self.searches.items():
            mine = {s.id: s for s in self.states.values() if s.trial.arm == arm}
            records = {s.id: s.record for s in mine.values() if s.record is not None}
            params = {s.id: s.trial.params for s in mine.values()}
            if search.reconcile(records, params, {s.id: s.curve for s in mine.values()}) and not self.notes:
                self.notes.append(f"optuna.db did not agree with the trials of '{arm}': written anew from them")
        for state in self.states.values():
            if state.record is None:
                self.waiting.append(state.id)
            elif state.record.cost:
                self.walls[state.trial.arm].append(state.record.cost.wall_seconds)

    def _check_fit(self, experiment: Experiment, trial: Trial) -> None:
        """Raises InputError unless the experiment, with this trial's parameters, gives this trial."""
        with contextlib.suppress(ValueError, KeyError):
            arm = resolved(experiment.arms[trial.arm], trial.params)
            wanted = (experiment.dataset, arm.backbone, arm.size, arm.strategy, arm.recipe, arm.fraction)
            if wanted == (trial.dataset, trial.backbone, trial.size, trial.strategy, trial.recipe, trial.fraction):
                return
        raise InputError(
            f"Trial {trial.id} in {self.directory.path} was made by another experiment than the one given. "
            "Nothing was touched; give the one it began with, or another --study NAME."
        )

    # --- running ---

    def run(self) -> Iterator[Status]:
        self.stop.heeded = True
        self.directory.stop_path.unlink(missing_ok=True)
        self._reconcile()
        yield self._status("running")
        beat = time.monotonic()
        while True:
            if self.stop.reason is None and self.directory.stop_path.exists():
                self.stop.reason = "stop.request"
            if self.stop.reason is None and not self.message:
                while self.executor.free() and (job := self._next()) is not None:
                    self.executor.submit(job)
            elif (running := self._running()) and self.executor.slots > 1:
                for trial_id in running:
                    self.executor.reply(trial_id, "stop")
            if self.executor.free() == self.executor.slots:
                break
            changed = False
            for message in self.executor.poll(0.2):
                changed |= self._handle(message)
            if changed or time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                yield self._status("running")
        self.directory.stop_path.unlink(missing_ok=True)
        complete = len(self.states) == self.experiment.trials and all(s.record for s in self.states.values())
        stopped = self.stop.reason and not complete  # asked as the last one ended: there is nothing to go on with
        yield self._status("stopped" if stopped else "failed" if self.message else "done")
        self.ended = True

    def close(self) -> None:
        """End the workers; if the study did not come to its end by itself, leave a word of that where possible."""
        self.executor.close()
        if not self.ended:
            with contextlib.suppress(OSError, WorkError):
                self.tokens.clear()
                self.message = self.message or "the controller broke off"
                self._status("failed")

    def _running(self) -> list[str]:
        return [trial_id for trial_id in self.tokens if self.states[trial_id].record is None]

    def _next(self) -> Job | None:
        """The next attempt: what was interrupted first, then the arm that has had the fewest trials."""
        if self.waiting:
            trial_id = self.waiting.pop(0)
            return self._job(trial_id, self.states[trial_id].trial)
        made = Counter(s.trial.arm for s in self.states.values())
        open_arms = [name for name, quota in self.quota.items() if made[name] < quota]
        if not open_arms:
            return None
        arm = min(open_arms, key=lambda name: made[name] / self.quota[name])
        if self.options.population != 1 and self.tokens and self.arm in open_arms:
            arm = self.arm  # those alike train together: one arm after another
        self.arm = arm
        asked, params = self.searches[arm].ask(made[arm])
        trial = self._trial(arm, params)
        self.searches[arm].name(asked, trial.id)
        self.directory.trial(trial.id).create(trial)
        self.states[trial.id] = TrialState(trial.id, trial)
        return self._job(trial.id, trial)

    def _job(self, trial_id: str, trial: Trial) -> Job:
        token = secrets.token_hex(8)
        self.tokens[trial_id] = token
        self.attempts[trial_id] += 1
        directory = self.directory.trial(trial_id)
        trial = trial.model_copy(update={"device": self.options.device})  # a resumed one may have begun on another
        return Job(trial, trial_id, str(directory.path), str(self.results), token, self.options.command)

    def _trial(self, name: str, params: Params, number: int | None = None) -> Trial:
        """Resolve everything that the training needs."""
        experiment = self.experiment
        try:
            arm = resolved(experiment.arms[name], params)
        except ValueError as error:
            raise InputError(f"Arm '{name}' cannot take {params}: {first_error(error)}") from None
        if arm.fraction not in self.infos:
            splits = search_splits(experiment.dataset, fraction=arm.fraction, limit=experiment.limit)
            self.infos[arm.fraction] = splits.info
        info = self.infos[arm.fraction]
        if number is None:
            number = max((s.trial.number for s in self.states.values()), default=-1) + 1
        steps = () if len(self.quota) and self.quota[name] == 1 else rungs(experiment.pruning, arm.recipe.epochs)
        return Trial(
            study=self.directory.name,
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
            device=self.options.device,
            threads=self.executor.threads,
            rungs=steps,
            caps=experiment.caps,
        )

    def _weights(self, arm: Arm) -> Weights | None:
        if arm.strategy.kind in FROM_RANDOM or arm.weights is None:
            return None
        if arm.weights == "experiment":
            return weights_of(pretraining_of(self.experiment).name, self.results)
        return weights_of(arm.weights, self.results)

    # --- what comes back ---

    def _handle(self, message: Message) -> bool:
        """Take in one message; says whether the picture changed."""
        trial_id = message.trial_id
        state = self.states[trial_id]
        if message.attempt != self.tokens.get(trial_id):
            return False  # a late word from an attempt that was given up
        event = message.event
        if message.lost is not None:
            self._lost(state, message)
            return True
        if event is None:
            self._ended(state)
            return True
        stopping = bool(self.stop.reason or self.message)
        if isinstance(event, Started | Evaluated):
            state.update([Line(seq=0, time=time.time(), event=event)])
            prune = isinstance(event, Evaluated) and self._judge(state, event)
            if awaits_verdict(state.trial, event) or stopping:
                # a rung's verdict comes before a stop: it would not be asked for again
                self.executor.reply(trial_id, "prune" if prune else "stop" if stopping else None)
            return True
        if stopping:
            self.executor.reply(trial_id, "stop")
        return False

    def _judge(self, state: TrialState, event: Evaluated) -> bool:
        if event.epoch not in state.trial.rungs:
            return False
        return self.searches[state.trial.arm].should_prune(state.id, event.epoch, event.accuracy)

    def _ended(self, state: TrialState) -> None:
        """The attempt is over: result.json says how, and its absence that it was stopped."""
        self.tokens.pop(state.id, None)
        state.settle(self.directory.trial(state.id).record())
        if state.record is None:
            state.state = "stopped"
            self.waiting.append(state.id)
            if not (self.stop.reason or self.message) and self.attempts[state.id] >= MAX_ATTEMPTS:
                self.message = f"trial {state.id} ended {MAX_ATTEMPTS} times without a result"
            return
        clear(self.directory.trial(state.id).path)
        self.searches[state.trial.arm].tell(state.record, state.trial.params)
        if state.record.cost is not None:
            self.walls[state.trial.arm].append(state.record.cost.wall_seconds)
        cause, times = self.same_failures
        if state.record.state != "failed":
            self.same_failures = ("", 0)
        else:
            reason = state.record.reason or ""
            kind = re.sub(r"\d+", "0", reason)  # "tried to allocate 812 MiB" is one cause, whatever the number
            self.same_failures = (kind, times + 1 if kind == cause else 1)
            if self.same_failures[1] >= MAX_SAME_FAILURES:
                self.message = f"{MAX_SAME_FAILURES} trials in a row failed with: {reason}"

    def _lost(self, state: TrialState, message: Message) -> None:
        """Run a trial again whose worker died, unless it has done so too often."""
        token = self.tokens.pop(state.id)
        if self.directory.trial(state.id).record() is not None:  # it died after its last act
            self._ended(state)
        elif message.again and self.attempts[state.id] < MAX_ATTEMPTS:
            state.state = "waiting"
            self.waiting.append(state.id)
        else:
            reason = f"{message.lost}, {MAX_ATTEMPTS} times" if message.again else message.lost
            record = Record(
                trial=state.id,
                arm=state.trial.arm,
                state="failed",
                attempt=token,
                reason=reason,
                ended=time.time(),
                curve=tuple(state.curve),
                provenance=self._provenance(state),
            )
            self.directory.trial(state.id).conclude(record)
            self._ended(state)

    def _provenance(self, state: TrialState) -> Provenance:
        """Of a trial that is lost, as far as it is known here."""
        local = self.options.engine == "local"
        where = device.pick(self.options.device if local else "cpu")
        found = provenance(state.trial, self.options.command, where, state.trial.recipe.precision)
        if local:
            return found
        host = state.started.host if state.started else "unknown"
        return found.model_copy(update={"host": host, "hardware": "unknown"})

    # --- telling others ---

    def _status(self, state: str) -> Status:
        there = self.directory.status()
        if self.spoke and there and (there.pid, there.host, there.started) != (self.pid, self.host, self.started):
            raise WorkError(
                f"Study '{self.directory.name}' was taken over by pid {there.pid} on {there.host}, so this controller "
                "gives way. Nothing is lost."
            )
        self.spoke = True
        kinds = Counter(s.state for s in self.states.values())
        finished = [s for s in self.states.values() if s.state == "finished" and s.best is not None]
        best = max(finished, key=lambda s: (s.best or 0.0, -s.trial.number), default=None)
        status = Status(
            study=self.directory.name,
            state=state,  # type: ignore[arg-type]
            pid=self.pid,
            host=self.host,
            started=self.started,
            heartbeat=time.time(),
            planned=self.experiment.trials,
            finished=kinds["finished"],
            pruned=kinds["pruned"],
            failed=kinds["failed"],
            running=tuple(self.tokens),
            best_trial=best.id if best else None,
            best_accuracy=best.best if best else None,
            eta_seconds=self._eta() if state == "running" else None,
            workers=self.workers,
            message=printable(self.stop.reason or self.message or "; ".join(self.notes)),  # paths need not be text
        )
        write_model(self.directory.status_path, status, durable=state != "running")
        return status

    def _eta(self) -> float | None:
        """Seconds to go: each arm's mean so far times what it has left, shared by the workers."""
        done = Counter(s.trial.arm for s in self.states.values() if s.record is not None)
        left = {name: quota - done[name] for name, quota in self.quota.items()}
        everything = [wall for walls in self.walls.values() for wall in walls]
        if not everything:
            return None
        mean = {n: sum(w) / len(w) if w else sum(everything) / len(everything) for n, w in self.walls.items()}
        return sum(left[name] * mean[name] for name in left) / self.workers


def _refuse_newer(path: Path) -> None:
    if repair.newer(path):
        raise InputError(f"{path} was written by a newer version. Use that one, or take another --study NAME.")


def _same_question(old: Experiment, new: Experiment, name: str) -> None:
    """A study goes on with the question it began with; only the number of trials may grow."""
    prose = {"trials", "name", "question"}
    before, now = old.model_dump(exclude=prose), new.model_dump(exclude=prose)
    if before == now:
        return
    changed = [key for key in before if before[key] != now[key]]
    raise InputError(
        f"Study '{name}' cannot be resumed: the experiment now differs from the one it began with in "
        f"{', '.join(changed)}. Put it back, or start a new study with --study NAME."
    )
