"""Runs one trial: the imperative shell around `fit`.

It writes what happens into the trial's directory, yields every event, and obeys the verdict that is sent
back: None to go on, 'prune' to end here, 'stop' to put everything down so that a later attempt goes on.
"""

from __future__ import annotations

import atexit
import gc
import json
import math
import os
import platform
import socket
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from suite.data.datasets import search_splits
from suite.data.splits import Info, Labelled
from suite.errors import InputError, WorkError, printable
from suite.hardware import autotune, device, latency, memory
from suite.hardware import flops as hardware_flops
from suite.hardware.energy import Meter
from suite.hardware.flops import Counted
from suite.hardware.latency import latency_256
from suite.models import assembly, features, heads, strategies
from suite.models.assembly import Assembled
from suite.models.preprocessing import evaluation_preparer
from suite.spec import (
    Checkpointed,
    Cost,
    Evaluated,
    Event,
    Failed,
    Finished,
    HeadOnly,
    LpFt,
    Progress,
    Provenance,
    Pruned,
    Recipe,
    Record,
    Started,
    Stopped,
    Trial,
    Verdict,
)
from suite.store.events import EventWriter
from suite.store.files import DISK_FAULTS, disk_fault, write_atomic
from suite.store.provenance import commit, packages, version
from suite.store.trial import Overtaken, TrialDir
from suite.training import checkpoint, evaluation, loop
from suite.training import state as training_state
from suite.training.augment import Prepare, feature_preparer, training_preparer
from suite.training.evaluation import Examples
from suite.training.loop import steps_per_epoch
from suite.training.mistakes import find_mistakes
from suite.training.state import Diverged, Step, Tally, state_numbers, state_tensors

CHECKPOINT_SECONDS = 30.0  # at most this much training is repeated after a crash; MNIST_SUITE_CHECKPOINT_SECONDS


Outcome = Literal["finished", "pruned", "failed"]

Events = Generator[Event | Step, Verdict | None, None]


@dataclass(frozen=True)
class Loaded:
    train: Examples
    validation: Examples
    info: Info


@lru_cache(maxsize=2)
def load_examples(dataset: str, fraction: float, limit: int | None, where: str) -> Loaded:
    """The two splits that a search may see, resident on the device; kept for the next trial in this process."""
    splits = search_splits(dataset, fraction=fraction, limit=limit)
    target = torch.device(where)

    def resident(part: Labelled) -> Examples:
        return Examples(torch.from_numpy(part.images).to(target), torch.from_numpy(part.labels).to(target))

    return Loaded(resident(splits.train), resident(splits.validation), splits.info)


def run_trial(
    trial: Trial, directory: TrialDir, results: Path, *, attempt: str, command: str = "", together: bool = False
) -> Events:
    """Run `trial` to its end, from its last whole checkpoint if there is one.

    With `together` the optimiser's steps are yielded between the events, for the caller to take before going on: it
    may take those of many trials at once.

    Failures of the trial itself become a Failed event and a record. A disk that takes no more is not the trial's
    failure: it raises WorkError. That, and closing the generator, leaves the directory as a crash would: resumable.
    """
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        checkpoint.tidy(directory.path)
        directory.best.unlink(missing_ok=True)  # of an attempt that died before its result
        writer = EventWriter(directory.events)
        run = _Run(trial, directory, results, attempt, command, writer.seq, together)
        try:
            yield from _attempt(run, writer)
        finally:
            writer.close()
    except OSError as error:
        raise WorkError(disk_fault(error)) from error


def _attempt(run: _Run, writer: EventWriter) -> Events:
    directory = run.directory
    try:
        for event in run.events():
            if run.meter is not None and not isinstance(event, Step):
                run.meter.tick()
            asked = time.perf_counter()
            if isinstance(event, Step):
                yield event
                share = event.seconds or 0.0
            else:
                run.verdict = yield writer.append(event).event
                share = 0.0
            if run.together:  # meanwhile the others had their turn
                run.away += time.perf_counter() - asked - share
    except Exception as error:
        if isinstance(error, Overtaken) or (isinstance(error, OSError) and _of_the_disk(error, directory.path)):
            raise
        diverged = isinstance(error, Diverged)
        reason = f"diverged: {error}" if diverged else describe(error)
        step = run.tally.step
        run.commit("pruned" if diverged else "failed", reason)
        over: Event = Pruned(reason=reason, step=step) if diverged else Failed(reason=reason, step=step)
        yield writer.append(over).event


def _of_the_disk(error: OSError, place: Path) -> bool:
    """Whether the place to write to has failed, rather than the trial: full, read-only, broken or taken away."""
    return error.errno in DISK_FAULTS or str(error.filename or "").startswith(str(place))


def release() -> None:
    """After a trial: give back what it held, so that one that ran out of memory leaves room for the next."""
    memory.make_room()
    gc.freeze()  # what is left are modules and caches for good: the next collection need not walk them again
    _thaw_at_exit()


@cache
def _thaw_at_exit() -> None:
    atexit.register(gc.unfreeze)  # or libraries complain of what they find undeleted


def healthy() -> bool:
    """Whether the GPU still answers this process: after some errors nothing does until the process ends."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def checkpoint_seconds() -> float:
    """Raises InputError."""
    text = os.environ.get("MNIST_SUITE_CHECKPOINT_SECONDS", "")
    try:
        return max(0.0, float(text)) if text else CHECKPOINT_SECONDS
    except ValueError:
        raise InputError(f"MNIST_SUITE_CHECKPOINT_SECONDS is {text[:80]!r}, which is no number of seconds.") from None


def describe(error: Exception) -> str:
    """The reason of a failure in one line; running out of memory is always named so."""
    text = printable(str(error).strip().splitlines()[0]) if str(error).strip() else ""
    if memory.ran_out(error):
        return f"out of memory: {text or 'allocation refused'}"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


class _Run:
    """One attempt at one trial."""

    def __init__(
        self,
        trial: Trial,
        directory: TrialDir,
        results: Path,
        attempt: str,
        command: str,
        since: int,
        together: bool,
    ) -> None:
        self.trial, self.directory, self.results = trial, directory, results
        self.attempt, self.command, self.since, self.together = attempt, command, since, together
        self.verdict: Verdict | None = None
        self.over = False  # ended before its end: pruned or stopped
        self.tally = Tally()
        self.counted: Counted | None = None
        self.meter: Meter | None = None
        self.assembled: Assembled | None = None
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.began = time.time()
        self.clock = time.perf_counter()
        self.earlier_wall = 0.0  # seconds that former attempts took
        self.away = 0.0  # of that, seconds in which other trials of the same process had their turn
        self.setup_seconds = 0.0
        self.setup_flops = 0
        self.latency: float | None = None
        self.latency_256: float | None = None
        self.best_logits: Tensor | None = None  # of the validation images
        self.validation_images = 0
        self.artifact_sha256: str | None = None
        self.accuracy_fp32: float | None = None

    # --- the course of a trial ---

    def events(self) -> Iterator[Event | Step]:
        trial = self.trial
        self.device = device.pick(trial.device)
        if trial.threads:
            torch.set_num_threads(trial.threads)
        autotune.keep_memory()
        torch.manual_seed(trial.seed)
        self.meter = Meter(self.device)
        loaded = load_examples(trial.dataset, trial.fraction, trial.limit, str(self.device))
        if loaded.info.data_hash != trial.data_hash or loaded.info.split_hash != trial.split_hash:
            raise InputError(f"The data of '{trial.dataset}' are not the ones this trial was planned with.")
        self.validation_images = len(loaded.validation)
        self.assembled = assembly.assemble(trial, loaded.info, self.results)
        self.assembled.model.to(self.device)
        if isinstance(trial.strategy, HeadOnly):
            yield from self._head(trial.strategy, loaded)
        else:
            yield from self._gradient(loaded)

    def _gradient(self, loaded: Loaded) -> Iterator[Event | Step]:
        trial, model, expects = self.trial, self._assembled().model, self._assembled().expects
        recipe = trial.recipe
        frozen = strategies.freeze(trial.strategy, model)
        saved = checkpoint.load(self.directory.path)
        if saved is not None:  # as it began, whatever would be chosen now
            self.dtype = device.DTYPES[saved[1]["precision"]]
        else:
            what = f"{trial.backbone} at {expects.size} px, {trial.strategy.kind}"
            self.dtype = autotune.precision(recipe.precision, self.device, model, expects.shape, what)
        self.counted = hardware_flops.count(model, expects.shape)
        yield from self._within_caps(model)
        if self.over:
            return
        if isinstance(trial.strategy, LpFt) and saved is None:
            yield from self._probe(trial.strategy, loaded)
            if self.over:
                return
        prepare = training_preparer(expects, recipe.augment, self.device)
        yield from self._fit(model, loaded, recipe, prepare, saved, frozen)
        if not self.over:
            yield self._finish(model, model, loaded)

    def _head(self, strategy: HeadOnly, loaded: Loaded) -> Iterator[Event | Step]:
        trial, model, expects = self.trial, self._assembled().model, self._assembled().expects
        classes = len(loaded.info.classes)
        model.requires_grad_(False)
        body = self.counted = hardware_flops.count(model, expects.shape)
        yield from self._within_caps(model)
        if self.over:
            return
        x = yield from self._features(loaded)
        if x is None:
            return
        if heads.by_gradient(strategy.head):
            head: heads.Head | heads.Neighbours = heads.make(strategy.head, x.train.inputs, classes, trial.seed)
            inner = hardware_flops.count(head, tuple(x.train.inputs.shape[1:]))
            self.counted = Counted(body.parameters, inner.trainable, body.forward_flops, inner.training_flops)
            saved = checkpoint.load(self.directory.path)
            yield from self._fit(head, x, trial.recipe, feature_preparer, saved, None)
            if self.over:
                return
        else:
            self.setup_seconds = self._wall()
            yield self._started(0)
            if self.verdict == "stop":  # solving cannot be interrupted, and may take minutes
                self.over = True
                yield Stopped(reason="asked to stop", step=0)
                return
            clock = time.perf_counter()
            head, flops = heads.solve(strategy.head, x.train.inputs, x.train.labels, classes)
            self.tally = Tally(step=1, images=len(x.train), seconds=time.perf_counter() - clock)
            scores = evaluation.evaluate(head, x.validation, feature_preparer, self.device, torch.float32)
            if not math.isfinite(scores.loss):
                raise Diverged(f"the validation loss is {scores.loss}")
            self.tally.note(1, scores)
            self.best_logits = scores.logits
            yield Evaluated(step=1, epoch=1, accuracy=scores.accuracy, loss=scores.loss, seconds=self.tally.seconds)
            solved = sum(p.numel() for p in head.parameters())
            self.counted = Counted(body.parameters, solved, body.forward_flops, flops)
        whole = assembly.attach(model, head).requires_grad_(False)
        used = hardware_flops.count(
            whole, expects.shape
        )  # as it will answer: a head may weigh more than the one it replaced
        self.counted = replace(self.counted, parameters=used.parameters, forward_flops=used.forward_flops)
        yield from self._within_caps(whole)
        if not self.over:
            yield self._finish(head, whole, loaded)

    def _fit(
        self,
        model: nn.Module,
        examples: Loaded,
        recipe: Recipe,
        prepare: Prepare,
        saved: tuple[dict[str, Tensor], dict[str, Any]] | None,
        frozen: Callable[[nn.Module], None] | None,
    ) -> Iterator[Event | Step]:
        """`fit`, with checkpoints as time passes and an end as soon as the verdict says so.

        Leaves the best weights in the model.
        """
        count = len(examples.train)
        if recipe.batch_size > count:
            raise InputError(
                f"Batch size {recipe.batch_size} is larger than the {count} training images; "
                "take a smaller batch or a larger fraction."
            )
        training = training_state.begin(model, recipe, self.device, self.dtype)
        if saved is not None:
            tensors, numbers = saved
            training_state.restore(training, tensors, numbers)
            self.earlier_wall = numbers["wall"]
            self.setup_flops += numbers["setup_flops"]
            if self.meter is not None:
                self.meter.add(numbers.get("joules"))
        self.tally = training.tally
        self.setup_seconds = self._wall() - self.earlier_wall
        yield self._started(steps_per_epoch(count, recipe.batch_size) * recipe.epochs)
        saved_at, interval = time.monotonic(), checkpoint_seconds()
        advance = loop.course if self.together else loop.fit
        for event in advance(
            training,
            examples.train,
            examples.validation,
            recipe,
            prepare,
            seed=self.trial.seed,
            freeze=frozen,
            checks=self.trial.rungs,
        ):
            if isinstance(event, Step):
                yield event
                continue
            if isinstance(event, Evaluated) and event.loss is None:
                self._forget(event.epoch)
                raise Diverged(f"the validation loss is no finite number after epoch {event.epoch:g}")
            yield event
            stop = self.verdict == "stop"
            if self.verdict == "prune" and isinstance(event, Evaluated):
                self.over = True
                reason = f"{event.accuracy:.4f} on validation after epoch {event.epoch:g} is not among the arm's best"
                self.commit("pruned", reason)
                yield Pruned(reason=reason, step=self.tally.step)
                return
            if stop or time.monotonic() - saved_at > interval:
                self.hold()
                spent = {"wall": self._wall(), "setup_flops": self.setup_flops, "joules": self._joules()}
                numbers = {**state_numbers(training), **spent, "precision": device.name_of(self.dtype)}
                digest = checkpoint.save(self.directory.path, state_tensors(training), numbers)
                saved_at = time.monotonic()
                yield Checkpointed(step=self.tally.step, sha256=digest)
            if stop:
                self.over = True
                yield Stopped(reason="asked to stop", step=self.tally.step)
                return
        self.best_logits = training.best_logits
        model.load_state_dict(training.best_state)
        model.eval()

    def _forget(self, epoch: float) -> None:
        """An evaluation with NaN or infinity in it is never the best one."""
        tally = self.tally
        if tally.best_epoch == epoch:
            tally.best_accuracy, tally.best_loss, tally.best_epoch = None, math.inf, 0.0

    def _finish(self, trained: nn.Module, whole: nn.Module, loaded: Loaded) -> Event:
        """Save what was trained, look at how it errs, time the whole model as it will be exported, and commit."""
        self.hold()
        self.artifact_sha256 = checkpoint.save_tensors(self.directory.best, trained.state_dict())
        assert self.best_logits is not None and self.tally.best_accuracy is not None
        found = find_mistakes(self.best_logits, loaded.validation, loaded.info.classes)
        write_atomic(self.directory.path / "validation.json", json.dumps(found.model_dump(mode="json")))
        shape = self._assembled().expects.shape
        self.latency = latency.latency(whole, shape, self.device)
        self.latency_256 = latency_256(whole, shape, self.device, self.latency)
        self.accuracy_fp32 = self.tally.best_accuracy
        if self.dtype != torch.float32:  # an export answers in float32: does that change what was chosen by?
            prepare = evaluation_preparer(self._assembled().expects, self.device)
            self.accuracy_fp32 = evaluation.evaluate(
                whole, loaded.validation, prepare, self.device, torch.float32
            ).accuracy
        self.commit("finished", None)
        return Finished(accuracy=self.tally.best_accuracy, step=self.tally.step)

    # --- pieces ---

    def hold(self) -> None:
        """Before files are written that a later attempt may rely on. Raises Overtaken."""
        if self.directory.overtaken(self.attempt, self.since):
            raise Overtaken.of(self.directory.id)

    def commit(self, state: Outcome, reason: str | None) -> None:
        """End the trial: its result first, then its training state, which is needed no more. Raises Overtaken."""
        if not self.directory.commit(self.record(state, reason), self.since):
            raise Overtaken.of(self.directory.id)
        checkpoint.clear(self.directory.path)

    def _within_caps(self, model: nn.Module) -> Iterator[Event]:
        """End the trial where its model costs more than the experiment allows: before its training, if it can be."""
        shape, counted = self._assembled().expects.shape, self.counted
        assert counted is not None
        reason = latency.beyond(self.trial.caps, counted, lambda: latency.latency(model, shape, self.device))
        if reason is not None:
            self.over = True
            if self.tally.step == 0:
                yield self._started(0)
            self.commit("pruned", reason)
            yield Pruned(reason=reason, step=self.tally.step)

    def _assembled(self) -> Assembled:
        assert self.assembled is not None
        return self.assembled

    def _features(self, loaded: Loaded) -> Generator[Event, None, Loaded | None]:
        """The two splits as frozen features; None when stopped on the way."""
        model, expects, trial = self._assembled().model, self._assembled().expects, self.trial
        dtype = device.precision(trial.recipe.precision, self.device, model, training=False)
        parts: list[Examples] = []
        for role, part in (("train", loaded.train), ("validation", loaded.validation)):
            key = f"{trial.data_hash}/{trial.split_hash}/{role}/{trial.fraction}/{trial.limit}"
            work = features.cached(model, part.inputs, expects, dtype, images_hash=key)
            clock = time.perf_counter()
            while True:
                try:
                    done = next(work)
                except StopIteration as end:
                    found, hit = end.value
                    break
                rate = max(done, 0) / (time.perf_counter() - clock)
                yield Progress(step=0, epoch=0.0, loss=None, lr=0.0, images_per_second=rate, seconds=0.0)
                if self.verdict == "stop":
                    self.over = True
                    yield Stopped(reason="asked to stop", step=0)
                    return None
            if not hit:
                flops = hardware_flops.count(model, expects.shape).forward_flops
                self.setup_flops += flops * len(part)
            parts.append(Examples(found, part.labels))
        return Loaded(parts[0], parts[1], loaded.info)

    def _probe(self, strategy: LpFt, loaded: Loaded) -> Iterator[Event]:
        """The linear probe that lp-ft starts from, put in as the classifier."""
        x = yield from self._features(loaded)
        if x is None:
            return
        head = heads.make(HeadOnly().head, x.train.inputs, len(loaded.info.classes), self.trial.seed)
        recipe = Recipe(
            lr=strategy.probe_lr, batch_size=min(256, len(x.train)), epochs=strategy.probe_epochs, schedule="cosine"
        )
        probe = training_state.begin(head, recipe, self.device, torch.float32)
        for event in loop.fit(probe, x.train, x.validation, recipe, feature_preparer, seed=self.trial.seed):
            if isinstance(event, Progress):  # of the setup: the trial itself stands at step 0
                yield event.model_copy(update={"step": 0, "epoch": 0.0, "seconds": 0.0})
                if self.verdict == "stop":
                    self.over = True
                    yield Stopped(reason="asked to stop", step=0)
                    return
        head.load_state_dict(probe.best_state)
        self.setup_flops += (
            hardware_flops.count(head, tuple(x.train.inputs.shape[1:])).training_flops * probe.tally.images
        )
        assembly.attach(self._assembled().model, head)

    def _wall(self) -> float:
        return self.earlier_wall + time.perf_counter() - self.clock - self.away

    def _joules(self) -> float | None:
        return self.meter.energy()[0] if self.meter is not None else None

    def _started(self, steps: int) -> Started:
        counted = self.counted
        return Started(
            attempt=self.attempt,
            pid=os.getpid(),
            host=socket.gethostname(),
            step=self.tally.step,
            steps=steps,
            parameters=counted.parameters if counted else 0,
            trainable=counted.trainable if counted else 0,
            forward_flops=counted.forward_flops if counted else 0,
        )

    def record(self, state: Outcome, reason: str | None) -> Record:
        """What the trial came to, as far as it came."""
        tally = self.tally
        return Record(
            trial=self.directory.id,
            arm=self.trial.arm,
            state=state,
            attempt=self.attempt,
            accuracy=tally.best_accuracy,
            loss=tally.best_loss if math.isfinite(tally.best_loss) else None,
            epoch=tally.best_epoch or None,
            images=self.validation_images,
            steps=tally.step,
            curve=tuple(tally.curve),
            reason=reason,
            cost=self._cost(),
            provenance=self._provenance(),
            artifact="best.safetensors" if state == "finished" else None,
            artifact_sha256=self.artifact_sha256,
            accuracy_fp32=self.accuracy_fp32,
            started=self.began,
            ended=time.time(),
        )

    def _cost(self) -> Cost | None:
        if self.counted is None or self.meter is None:
            return None
        peak, memory_source = self.meter.memory()
        joules, energy_source = self.meter.energy()
        if self.together:
            memory_source = f"{memory_source} (shared by trials trained together)"
            joules, energy_source = None, "unattributable (trials trained together)"
        seconds, images = self.tally.seconds, self.tally.images
        return Cost(
            parameters=self.counted.parameters,
            trainable=self.counted.trainable,
            forward_flops=self.counted.forward_flops,
            training_flops=self.counted.training_flops * images,
            setup_flops=self.setup_flops,
            wall_seconds=self._wall(),
            train_seconds=seconds,
            setup_seconds=self.setup_seconds,
            images_per_second=images / seconds if seconds > 0 else 0.0,
            peak_memory_bytes=peak,
            memory_source=memory_source,
            energy_joules=joules,
            energy_source=energy_source,
            latency_seconds=self.latency,
            latency_256_seconds=self.latency_256,
        )

    def _provenance(self) -> Provenance:
        given = self.assembled.provenance if self.assembled else None
        made = provenance(self.trial, self.command, self.device, device.name_of(self.dtype))
        if given is None:
            return made
        # named as the trial names them, below the results directory where they are there
        source = given.source if made.weights in (None, "pretrained") else made.weights
        return made.model_copy(update={"weights_sha256": given.sha256, "weights": printable(source)})


def provenance(trial: Trial, command: str, where: torch.device, precision: str) -> Provenance:
    """What made a trial's record, with the weights that it was planned with."""
    return Provenance(
        version=version(),
        command=command,
        commit=commit(),
        python=platform.python_version(),
        packages=packages(),
        host=socket.gethostname(),
        hardware=device.hardware(where),
        threads=trial.threads or torch.get_num_threads(),
        precision=precision,
        data_sha256=trial.data_hash,
        split_sha256=trial.split_hash,
        weights=trial.weights.source if trial.weights else None,
        weights_sha256=trial.weights.sha256 if trial.weights else None,
    )
