"""The controller of a study: the only process that asks, tells and prunes.

`sweep` is a generator: it yields a Status whenever something changed, and does its work between them.
A single training is a study of one trial, so `pretrain` and `finetune` come this way too.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from suite import backbones, data, device, weights
from suite.checkpoint import file_sha256
from suite.errors import InputError
from suite.execute import Executor, Inline, Job, Message, Processes, awaits_verdict
from suite.runner import packages, version
from suite.search import Search, open_storage, rungs
from suite.spec import (
    FROM_RANDOM,
    Arm,
    Evaluated,
    Experiment,
    Params,
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
from suite.store import (
    StudyDir,
    TrialState,
    find_trial,
    make_writable,
    open_study,
    split_reference,
    write_model,
)
from suite.train import mix

MAX_ATTEMPTS = 3  # a trial that loses its worker so often fails
MAX_SAME_FAILURES = 5  # in a row, of one cause: then the study stops rather than burn the rest
HEARTBEAT_SECONDS = 2.0


@dataclass
class Stop:
    """Set by a signal handler; the controller looks at it."""

    reason: str | None = None


@dataclass(frozen=True)
class Options:
    """How to run a study, as opposed to what: nothing here may change a figure."""

    workers: int = 1
    device: str = "auto"
    storage: str | None = None
    resume: bool = False
    command: str = ""


def study_exists(results: Path, name: str) -> bool:
    return StudyDir(results, name).exists()


def sweep(
    experiment: Experiment, results: Path, *, study: str | None = None, options: Options, stop: Stop
) -> Iterator[Status]:
    """Run or resume a study to exactly its number of trials. Raises InputError; the last Status tells the end."""
    directory = StudyDir(results, study or experiment.name)
    check(experiment, results, options)
    make_writable(results)
    if experiment.pretraining is not None and any(arm.weights == "experiment" for arm in experiment.arms.values()):
        yield from _pretraining(experiment, results, options, stop)
        if stop.reason:
            return
    with directory.hold():
        controller = _Controller(experiment, results, directory, options, stop)
        try:
            yield from controller.run()
        finally:
            controller.executor.close()


def check(experiment: Experiment, results: Path, options: Options) -> None:
    """Refuse what cannot run before anything is written or trained. Raises InputError."""
    device.pick(options.device)
    if options.storage is not None:
        open_storage(results, options.storage)
    for name, arm in experiment.arms.items():
        backbones.exists(arm.backbone)
        if arm.weights == "pretrained":
            weights.find_pretrained(arm.backbone)
        elif arm.weights not in (None, "experiment"):
            weights_of(arm.weights, results)
        splits = data.search_splits(experiment.dataset, fraction=arm.fraction, limit=experiment.limit)
        choices = {**experiment.space, **arm.space}.get("batch_size")
        sizes = [v for v in getattr(choices, "values", ()) if isinstance(v, int)] or [arm.recipe.batch_size]
        if max(sizes) > len(splits.train.labels):
            raise InputError(
                f"Arm '{name}' may use batches of {max(sizes)}, but has only {len(splits.train.labels)} training "
                "images; take smaller batches (--set batch_size=N) or more data."
            )


def single(name: str, arm: Arm, dataset: str, *, seed: int, limit: int | None) -> Experiment:
    """The experiment of one training."""
    return Experiment(
        name=name,
        question=f"One training of {arm.backbone} by {arm.strategy.kind} on {dataset}.",
        dataset=dataset,
        arms={arm.strategy.kind: arm},
        trials=1,
        pruning=None,
        seed=seed,
        limit=limit,
    )


def pretraining_of(experiment: Experiment) -> Experiment:
    """The one-trial study that an experiment's arms stand on; equal pretrainings share it."""
    assert experiment.pretraining is not None
    plan = experiment.pretraining
    arm = Arm.model_validate(
        {"backbone": plan.backbone, "strategy": {"kind": "pretrain"}, "recipe": plan.recipe.model_dump()}
    )
    return single(
        auto_name("pretrain", arm, plan.dataset, experiment.seed, experiment.limit),
        arm,
        plan.dataset,
        seed=experiment.seed,
        limit=experiment.limit,
    )


def auto_name(verb: str, arm: Arm, dataset: str, seed: int, limit: int | None) -> str:
    """A study name that is the same for the same training, so that asking twice does the work once."""
    import hashlib

    content = f"{arm.model_dump_json()} {dataset} {seed} {limit}"
    plain = "".join(c if c.isalnum() else "-" for c in f"{arm.backbone.removeprefix('timm:')}-{dataset}")[:48]
    return f"{verb}-{plain.strip('-')}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def _pretraining(experiment: Experiment, results: Path, options: Options, stop: Stop) -> Iterator[Status]:
    plan = pretraining_of(experiment)
    done = StudyDir(results, plan.name)
    if done.exists() and any(s.state == "finished" for s in done.states()):
        return
    yield from sweep(plan, results, options=Options(1, options.device, None, True, options.command), stop=stop)
    if stop.reason is None and not any(s.state == "finished" for s in done.states()):
        reasons = ", ".join(s.reason or s.state for s in done.states())
        raise InputError(f"The pretraining that this experiment stands on did not finish: {reasons}.")


def weights_of(reference: str, results: Path) -> Weights:
    """Weights by name: 'pretrained', a file or a folder, or STUDY[/TRIAL] below the results. Raises InputError."""
    if reference == "pretrained":
        return Weights(source="pretrained")
    path = Path(reference).expanduser()
    if path.exists():
        path = path.absolute()
        if path.is_dir():
            path = path / "model.safetensors"
            if not path.is_file():
                raise InputError(f"The folder {reference} holds no model.safetensors to start from.")
        return Weights(source=str(path), sha256=file_sha256(path))
    study_name, trial_id = split_reference(reference)
    try:
        study = open_study(results, study_name)
    except InputError as error:
        raise InputError(
            f"There are no weights '{reference}': it is neither a file or folder nor a study or trial in {results}. "
            f"{error}"
        ) from None
    state = find_trial(study, trial_id)
    best = study.trial(state.id).best
    if not best.is_file() or state.trial.strategy.kind == "head":
        raise InputError(
            f"Trial {study.name}/{state.id} has no whole model to start from (strategy {state.trial.strategy.kind}, "
            f"{state.state}); choose a finished trial that trained its backbone, or export it first."
        )
    return Weights(source=str(best.relative_to(results)), sha256=file_sha256(best))


class _Controller:
    def __init__(
        self, experiment: Experiment, results: Path, directory: StudyDir, options: Options, stop: Stop
    ) -> None:
        self.results, self.directory, self.options, self.stop = results, directory, options, stop
        self.experiment = self._open(experiment)
        self.quota = self.experiment.quota()
        self.threads = max(1, device.cores() // options.workers)
        self.storage = open_storage(directory.database, options.storage)
        self.searches = {
            name: Search(
                self.storage,
                f"{directory.name}/{name}",
                arm,
                self._space(arm),
                self.experiment.pruning,
                seed=mix(self.experiment.seed, number),
                trials=self.quota[name],
                parallel=options.workers > 1,
            )
            for number, (name, arm) in enumerate(self.experiment.arms.items())
        }
        self.executor: Executor = Inline() if options.workers == 1 else Processes(options.workers)
        self.states: dict[str, TrialState] = {}
        self.attempts: Counter[str] = Counter()
        self.tokens: dict[str, str] = {}  # the attempt that counts
        self.waiting: list[str] = []  # unfinished trials to run again
        self.infos: dict[float, data.Info] = {}
        self.started = time.time()
        self.walls: dict[str, list[float]] = {name: [] for name in self.quota}
        self.same_failures: tuple[str, int] = ("", 0)
        self.message = ""

    def _space(self, arm: Arm) -> Space:
        return {**self.experiment.space, **arm.space}

    # --- beginning ---

    def _open(self, experiment: Experiment) -> Experiment:
        """A new study's file, or the old one checked against what is asked now."""
        options, directory = self.options, self.directory
        old = directory.study()
        if old is None and directory.exists():
            raise InputError(
                f"{directory.path / 'study.json'} is damaged or was written by a newer version; "
                "nothing was touched. Choose another --study NAME."
            )
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
        info = data.search_splits(experiment.dataset, limit=experiment.limit).info
        if old is not None and old.data_hash != info.data_hash:
            raise InputError(f"The data of '{experiment.dataset}' have changed since study '{directory.name}' began.")
        if old is None or old.experiment != experiment:
            write_model(
                directory.path / "study.json",
                StudyFile(
                    study=directory.name,
                    created=old.created if old else time.time(),
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

    def _reconcile(self) -> None:
        """Make the sampler's memory agree with the trial directories, which are the truth."""
        for trial_directory in self.directory.trials():
            if trial_directory.trial() is None and trial_directory.record() is None:
                shutil.rmtree(trial_directory.path, ignore_errors=True)  # its controller died while making it
        for state in self.directory.states():
            self.states[state.id] = state
            search = self.searches[state.trial.arm]
            if state.record is not None:
                search.tell(state.record, state.trial.params)
                if state.record.cost:
                    self.walls[state.trial.arm].append(state.record.cost.wall_seconds)
            else:
                search.adopt(state.id, state.trial.params)
                self.waiting.append(state.id)
        for search in self.searches.values():
            search.abandon_orphans(set(self.states))

    # --- running ---

    def run(self) -> Iterator[Status]:
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
        if self.stop.reason:
            yield self._status("stopped")
        else:
            yield self._status("failed" if self.message else "done")

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
        asked, params = self.searches[arm].ask()
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
        return Job(trial, trial_id, str(directory.path), str(self.results), token, self.options.command)

    def _trial(self, name: str, params: Params) -> Trial:
        """Resolve everything that the training needs."""
        experiment = self.experiment
        try:
            arm = resolved(experiment.arms[name], params)
        except ValueError as error:
            raise InputError(f"Arm '{name}' cannot take {params}: {first_error(error)}") from None
        if arm.fraction not in self.infos:
            splits = data.search_splits(experiment.dataset, fraction=arm.fraction, limit=experiment.limit)
            self.infos[arm.fraction] = splits.info
        info = self.infos[arm.fraction]
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
            threads=self.threads,
            rungs=steps,
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
        if isinstance(event, Evaluated):
            state.curve.append((event.epoch, event.accuracy))
            prune = self._judge(state, event)
            if awaits_verdict(state.trial, event) or self.stop.reason:
                self.executor.reply(trial_id, "stop" if self.stop.reason else "prune" if prune else None)
            return True
        if isinstance(event, Started):
            state.started, state.state = event, "running"
            return True
        if self.stop.reason or self.message:
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
            return
        self.searches[state.trial.arm].tell(state.record, state.trial.params)
        if state.record.cost is not None:
            self.walls[state.trial.arm].append(state.record.cost.wall_seconds)
        cause, times = self.same_failures
        if state.record.state != "failed":
            self.same_failures = ("", 0)
        else:
            reason = state.record.reason or ""
            self.same_failures = (reason, times + 1 if reason == cause else 1)
            if self.same_failures[1] >= MAX_SAME_FAILURES:
                self.message = f"{MAX_SAME_FAILURES} trials in a row failed with: {reason}"

    def _lost(self, state: TrialState, message: Message) -> None:
        """Run a trial again whose worker died, unless it has done so too often."""
        token = self.tokens.pop(state.id)
        if self.directory.trial(state.id).record() is not None:  # it died after its last act
            self._ended(state)
        elif self.attempts[state.id] < MAX_ATTEMPTS:
            state.state = "waiting"
            self.waiting.append(state.id)
        else:
            reason = f"{message.lost}, {MAX_ATTEMPTS} times"
            record = Record(
                trial=state.id,
                arm=state.trial.arm,
                state="failed",
                attempt=token,
                reason=reason,
                ended=time.time(),
                curve=tuple(state.curve),
            )
            write_model(self.directory.trial(state.id).path / "result.json", record)
            self._ended(state)

    # --- telling others ---

    def _status(self, state: str) -> Status:
        kinds = Counter(s.state for s in self.states.values())
        finished = [s for s in self.states.values() if s.state == "finished" and s.best is not None]
        best = max(finished, key=lambda s: (s.best or 0.0, -s.trial.number), default=None)
        status = Status(
            study=self.directory.name,
            state=state,  # type: ignore[arg-type]
            pid=os.getpid(),
            host=socket.gethostname(),
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
            workers=self.options.workers,
            message=self.stop.reason or self.message,
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
        return sum(left[name] * mean[name] for name in left) / self.options.workers


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
