"""Runs one trial: writes its files, yields its events, and obeys the verdicts of the executor.

The work itself is in `gradient_trial` and `head_trial`. This module persists their events, passes the verdicts on, and
turns the way in which they end, or fail, into the trial's record.
"""

from __future__ import annotations

import atexit
import gc
import json
import time
from collections.abc import Generator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from suite.errors import InputError, WorkError, printable
from suite.hardware import device, memory
from suite.hardware.budget import share
from suite.hardware.energy import Meter
from suite.hardware.flops import count
from suite.hardware.latency import LEAST_SECONDS, measure
from suite.hardware.load import Gauge
from suite.models import lora
from suite.spec import (
    Event,
    Failed,
    Finished,
    HeadOnly,
    Int8,
    Paused,
    Progress,
    Pruned,
    Record,
    Stopped,
    Trial,
    Verdict,
)
from suite.store.events import EventWriter
from suite.store.files import DISK_FAULTS, disk_fault, write_atomic
from suite.store.trial import Overtaken, TrialDir
from suite.training import checkpoint
from suite.training.attempt import LATENCY, Attempt, Events, Trained, TrialPruned, TrialStopped
from suite.training.gradient_trial import gradient_trial
from suite.training.head_trial import head_trial
from suite.training.int8_trial import int8_trial
from suite.training.measuring import announced
from suite.training.mistakes import balanced_accuracy, find_mistakes
from suite.training.record import Account, Outcome, WallClock, build_record, cost_of, provenance
from suite.training.setup import Setup, load_images, set_up
from suite.training.state import Diverged, Step

T = TypeVar("T")


def run_trial(
    trial: Trial,
    directory: TrialDir,
    results: Path,
    *,
    attempt: str,
    command: str = "",
    together: bool = False,
    stage: int = 0,
) -> Events[None]:
    """Run `trial` to its end, from its last undamaged checkpoint if there is one; or, where it has passed fewer short
    trainings than it has `stages`, to the end of the next of these: it is paused then. Short trainings of which the
    checkpoint is lost are repeated.

    Yields every event once it is written. The value sent back is the verdict: None to go on, 'prune' to end the trial
    (after an evaluation), 'stop' to save its state and end the attempt, so that a later one continues. With `together`
    the optimiser's steps are yielded too; the caller carries each of them out before going on, and may combine those of
    several trials. `attempt` is the attempt's token; `command` goes into the record; `stage` is the number of short
    trainings that the trial is known to have passed.

    A failure of the trial itself becomes a Failed event and a record. Raises WorkError if the disk fails, and Overtaken
    if another attempt has begun. Both, and closing the generator, leave the directory as a crash would: resumable.
    """
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        checkpoint.tidy(directory.path)
        directory.best.unlink(missing_ok=True)  # of an attempt that died before it wrote its result
        rungs = checkpoint.passed(directory.path) if trial.stages else []
        stage = min(stage, len(rungs))
        with closing(EventWriter(directory.events)) as writer:
            one = Attempt(trial, directory, results, attempt, command, writer.seq, together, stage)
            if len(rungs) > stage:  # an attempt was killed before it told of this, or the log has lost it
                yield writer.append(_told_again(one, *rungs[stage])).event
            else:
                yield from _run(one, writer, rungs)
    except OSError as error:
        raise WorkError(disk_fault(error)) from error


def _run(attempt: Attempt, writer: EventWriter, rungs: list[tuple[float, float]]) -> Events[None]:
    trial, clock, where, validation_images = attempt.trial, WallClock(), torch.device("cpu"), 0
    try:
        where = device.pick(trial.device)
        meter = Meter(where)
        images = load_images(trial, where)
        validation_images = len(images.validation)
        work = set_up(trial, images, where, attempt.results, attempt.directory.path, attempt.stage)
        setup = yield from _relay(work, clock, meter, writer, together=attempt.together)
        counted = lora.counted(setup.model, setup.expects.shape, trial.recipe.batch_size)
        account = Account(clock, meter, counted, teacher_flops=_teacher_flops(setup))
        if setup.earlier:
            account.resume(setup.earlier)
    except Exception as error:
        reason = _reason(error, attempt)
        origin = provenance(trial, attempt.command, where, device.name_of(torch.float32))
        record = build_record(
            attempt.name,
            Outcome("failed", reason),
            began=clock.began,
            provenance=origin,
            images=validation_images,
            rungs=rungs,
        )
        attempt.commit(record)
        yield writer.append(Failed(reason=reason)).event
        return
    yield from _train(setup, account, attempt, writer)


def _teacher_flops(setup: Setup) -> int:
    return 0 if setup.teacher is None else count(setup.teacher, setup.expects.shape).forward_flops


def _train(setup: Setup, account: Account, attempt: Attempt, writer: EventWriter) -> Events[None]:
    """Train, and commit the result before the event that tells of it."""
    strategy = setup.trial.strategy
    if isinstance(strategy, HeadOnly):
        work = head_trial(setup, account, attempt, strategy)
    elif isinstance(strategy, Int8):
        work = int8_trial(setup, account, attempt)
    else:
        work = gradient_trial(setup, account, attempt)
    try:
        with closing(work):
            trained = yield from _relay(work, account.clock, account.meter, writer, together=attempt.together)
        if attempt.short:
            yield writer.append(_pause(setup, account, attempt, trained)).event
            return
        finish = _finish(setup, account, attempt, trained)
        outcome = yield from _relay(finish, account.clock, account.meter, writer, together=attempt.together)
        end: Finished | Pruned | Failed = Finished(accuracy=trained.accuracy, step=account.tally.step)
    except TrialStopped:
        yield writer.append(Stopped(reason="asked to stop", step=account.tally.step)).event
        return
    except (TrialPruned, Diverged) as error:
        reason = f"diverged: {error}" if isinstance(error, Diverged) else str(error)
        outcome, end = Outcome("pruned", reason), Pruned(reason=reason, step=account.tally.step)
    except Exception as error:
        reason = _reason(error, attempt)
        outcome, end = Outcome("failed", reason), Failed(reason=reason, step=account.tally.step)
    attempt.commit(_record(setup, account, attempt, outcome))
    yield writer.append(end).event


def _record(setup: Setup, account: Account, attempt: Attempt, outcome: Outcome) -> Record:
    precision = device.name_of(setup.precision)
    return build_record(
        attempt.name,
        outcome,
        began=account.clock.began,
        provenance=provenance(setup.trial, attempt.command, setup.device, precision, setup.weights),
        tally=account.tally,
        cost=cost_of(account, outcome, together=attempt.together),
        images=len(setup.images.validation),
        rungs=account.rungs,
    )


def _pause(setup: Setup, account: Account, attempt: Attempt, trained: Trained) -> Paused:
    """End a short training: save what it used and came to, and the record in case that the trial ends with it."""
    attempt.check_owner()
    rungs = (*account.rungs, (attempt.epochs, trained.accuracy))
    record = _record(setup, account, attempt, Outcome("pruned"))
    record = record.model_copy(update={"accuracy": trained.accuracy, "rungs": rungs})
    account.pass_stage(attempt.epochs, trained.accuracy)
    here = {"precision": device.name_of(setup.precision), "stage": attempt.stage}
    checkpoint.save(attempt.directory.path, {}, {**account.spent(), **here, "paused": record.model_dump_json()})
    return Paused(epochs=attempt.epochs, accuracy=trained.accuracy, step=account.tally.step)


def _told_again(attempt: Attempt, epochs: float, accuracy: float) -> Paused:
    """The end of a short training that an earlier attempt has reached."""
    record = checkpoint.paused_record(attempt.directory.path)
    return Paused(epochs=epochs, accuracy=accuracy, step=record.steps if record is not None else 0)


def _relay(
    work: Generator[Event | Step, Verdict | None, T],
    clock: WallClock,
    meter: Meter,
    writer: EventWriter,
    *,
    together: bool,
) -> Events[T]:
    """Write and yield what `work` yields, and send it the verdicts: the one place where they are received."""
    verdict: Verdict | None = None
    gauge = Gauge(meter.device)
    while True:
        try:
            item = work.send(verdict)
        except StopIteration as end:
            return end.value
        asked = time.perf_counter()
        if isinstance(item, Step):
            yield item
            verdict, own = None, item.seconds or 0.0
        else:
            meter.tick()
            if isinstance(item, Progress) and not together:
                item = item.model_copy(update=gauge.read())
            verdict, own = (yield writer.append(item).event), 0.0
        if together:  # meanwhile other trials of this process ran
            clock.excluded += time.perf_counter() - asked - own


def _finish(setup: Setup, account: Account, attempt: Attempt, trained: Trained) -> Events[Outcome]:
    """Save the weights and the mistakes on validation, and time the model as it will be exported."""
    attempt.check_owner()
    directory, images = attempt.directory, setup.images
    sha256 = checkpoint.save_tensors(directory.best, trained.artifact.state_dict())
    mistakes = find_mistakes(trained.logits, images.validation, images.info.classes)
    write_atomic(directory.path / "validation.json", json.dumps(mistakes.model_dump(mode="json")))
    budget = share(account.clock.seconds(), least=LEAST_SECONDS)
    latencies = yield from announced(measure(trained.model, setup.expects.shape, setup.device, budget), LATENCY)
    return Outcome(
        "finished",
        latencies=latencies,
        artifact_sha256=sha256,
        accuracy_fp32=trained.accuracy,
        balanced_accuracy=balanced_accuracy(mistakes.confusion),
        file_bytes=directory.best.stat().st_size,
    )


def _reason(error: Exception, attempt: Attempt) -> str:
    """Why a trial failed. Raises `error` again where it is no failure of the trial: another attempt owns it, or the
    disk is full, read-only, broken or gone."""
    place = str(attempt.directory.path)
    if isinstance(error, Overtaken):
        raise error
    if isinstance(error, OSError) and (error.errno in DISK_FAULTS or str(error.filename or "").startswith(place)):
        raise error
    return describe(error)


def describe(error: Exception) -> str:
    """The reason of a failure in one line. Running out of memory is always called that."""
    text = printable(str(error).strip().splitlines()[0]) if str(error).strip() else ""
    if memory.ran_out(error):
        return f"out of memory: {text or 'allocation refused'}"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def release() -> None:
    """Free the memory of a trial that is over, so that one that ran out of memory leaves room for the next."""
    memory.make_room()
    gc.freeze()  # what remains are modules and caches: later collections need not visit them
    _unfreeze_at_exit()


@cache
def _unfreeze_at_exit() -> None:
    atexit.register(gc.unfreeze)  # some libraries warn of objects that are never collected


def healthy() -> bool:
    """Whether the GPU still answers this process. After some CUDA errors it does not until the process ends."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
