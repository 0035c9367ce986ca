"""What trials of every strategy have in common: one attempt's right to write, its ends, and training with checkpoints.

The functions here are generators. They yield events, and the optimiser's steps where trials are trained together; the
value sent back after an event is the executor's verdict. A trial that ends early raises TrialPruned or TrialStopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from suite.errors import InputError
from suite.hardware import device, latency
from suite.hardware.flops import count
from suite.models import features
from suite.spec import Checkpointed, Evaluated, Event, Measuring, Progress, Record, Trial, Verdict
from suite.store.trial import Overtaken, TrialDir
from suite.training import checkpoint
from suite.training.augment import Prepare
from suite.training.checkpoint import checkpoint_seconds
from suite.training.evaluation import Examples
from suite.training.loop import fit, steps_per_epoch, total_steps, training_loop
from suite.training.measuring import announced
from suite.training.record import Account, AttemptName, started_event
from suite.training.setup import Loaded, Setup
from suite.training.state import (
    Diverged,
    Step,
    Training,
    begin,
    load_trained_state,
    restore,
    state_numbers,
    state_tensors,
)

LATENCY = Measuring(what="its latency")

T = TypeVar("T")

Events = Generator[Event | Step, Verdict | None, T]


class TrialPruned(Exception):
    """The trial is over before the end of its recipe."""


class TrialStopped(Exception):
    """The attempt ends; a later one continues from the last checkpoint."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a trial."""

    trial: Trial
    directory: TrialDir
    results: Path
    token: str  # no other attempt has it
    command: str
    since: int  # sequence number of the attempt's first event
    together: bool  # whether the caller carries out the optimiser's steps
    stage: int = 0  # number of complete short trainings that the trial has passed

    @property
    def short(self) -> bool:
        """Whether this training is one of the short ones that decide whether the trial goes on."""
        return self.stage < len(self.trial.stages)

    @property
    def epochs(self) -> float:
        """The length of this training."""
        return self.trial.stages[self.stage] if self.short else float(self.trial.recipe.epochs)

    @property
    def name(self) -> AttemptName:
        return AttemptName(self.directory.id, self.trial.arm, self.token)

    def check_owner(self) -> None:
        """To be called before writing files that a later attempt may rely on. Raises Overtaken."""
        if self.directory.overtaken(self.token, self.since):
            raise Overtaken.of(self.directory.id)

    def commit(self, record: Record) -> None:
        """End the trial: write its result, then remove its training state. Raises Overtaken."""
        if not self.directory.commit(record, self.since):
            raise Overtaken.of(self.directory.id)
        checkpoint.clear(self.directory.path)


@dataclass(frozen=True)
class Trained:
    """What a trial that has reached the end of its recipe produced."""

    artifact: nn.Module  # whose weights are saved: the model, or a head alone
    model: nn.Module  # from images to scores, as it will be exported
    logits: Tensor  # (N, classes) by `model` of the validation images in float32, on the CPU
    accuracy: float  # of those


def check_caps(setup: Setup, account: Account, attempt: Attempt, model: nn.Module) -> Events[None]:
    """Raises TrialPruned where the model costs more than the experiment allows."""
    caps = setup.trial.caps
    reason = latency.exceeded_cap(caps, account.counted)
    if reason is None and caps is not None and caps.latency is not None:
        one = yield from announced(latency.one_image(model, setup.expects.shape, setup.device), LATENCY)
        reason = latency.exceeded_cap(caps, account.counted, one)
    if reason is not None:
        if account.tally.step == 0:
            yield started_event(attempt.token, account, steps=0)
        raise TrialPruned(reason)


def extract_features(setup: Setup, account: Account, part: Examples, role: str, dtype: torch.dtype) -> Events[Examples]:
    """Frozen features (N, D) of the images of a split, from the cache where they are there.

    `role` is "train" or "validation". Yields Progress meanwhile. Raises TrialStopped.
    """
    trial, model = setup.trial, setup.model
    key = f"{trial.data_hash}/{trial.split_hash}/{role}/{trial.fraction}/{trial.limit}"
    work = features.cached(model, part.inputs, setup.expects, dtype, images_hash=key)
    begin_time = device.device_time(setup.device)
    while True:
        try:
            done = next(work)
        except StopIteration as end:
            found, hit = end.value
            break
        rate = max(done, 0) / (device.device_time(setup.device) - begin_time)
        event = Progress(step=0, epoch=0.0, loss=None, lr=0.0, images_per_second=rate, seconds=0.0)
        if (yield event) == "stop":
            raise TrialStopped
    if not hit:
        account.setup_flops += count(model, setup.expects.shape).forward_flops * len(part)
    return Examples(found, part.labels)


def frozen_features(setup: Setup, account: Account, dtype: torch.dtype) -> Events[Loaded]:
    """Both splits as frozen features, extracted under autocast to `dtype`."""
    images = setup.images
    train = yield from extract_features(setup, account, images.train, "train", dtype)
    validation = yield from extract_features(setup, account, images.validation, "validation", dtype)
    return Loaded(train, validation, images.info)


def train_with_checkpoints(
    setup: Setup,
    account: Account,
    attempt: Attempt,
    model: nn.Module,
    examples: Loaded,
    prepare: Prepare,
    *,
    dtype: torch.dtype,
    keep_frozen: Callable[[nn.Module], None] | None = None,
) -> Events[Training]:
    """Train `model` to the end of the trial's recipe, saving the state from time to time.

    Leaves the weights of the best evaluation in the model. Raises TrialPruned, TrialStopped, Diverged and InputError.
    """
    trial = setup.trial
    recipe, images = trial.recipe, len(examples.train)
    if recipe.batch_size > images:
        raise InputError(
            f"Batch size {recipe.batch_size} is larger than the {images} training images; "
            "take a smaller batch or a larger fraction."
        )
    training = begin(model, recipe, setup.device, dtype)
    training.teacher = setup.teacher
    if setup.saved is not None:
        restore(training, setup.saved.tensors, setup.saved.numbers)
    account.tally = training.tally
    account.begin_training(setup.device)
    yield started_event(attempt.token, account, total_steps(attempt.epochs, steps_per_epoch(images, recipe.batch_size)))
    saved_at, interval = time.monotonic(), checkpoint_seconds()
    run = training_loop if attempt.together else fit
    sets = (examples.train, examples.validation)
    checks = () if attempt.short else trial.rungs
    for event in run(
        training, *sets, recipe, prepare, seed=trial.seed, freeze=keep_frozen, checks=checks, epochs=attempt.epochs
    ):
        if isinstance(event, Step):
            yield event
            continue
        _check_finite(event)
        verdict = yield event
        if verdict == "prune" and isinstance(event, Evaluated):
            asked = attempt.directory.stop_request()
            why = "is not good enough for the pruner" if asked is None else f"stopped: {asked}"
            raise TrialPruned(f"{event.accuracy:.4f} on validation after epoch {event.epoch:g} {why}")
        if verdict == "stop" or time.monotonic() - saved_at > interval:
            yield _save(setup, account, attempt, training)
            saved_at = time.monotonic()
        if verdict == "stop":
            raise TrialStopped
    load_trained_state(model, training.best_state)
    model.eval()
    return training


def _check_finite(event: Progress | Evaluated) -> None:
    """Raises Diverged."""
    if isinstance(event, Evaluated) and event.loss is None:
        raise Diverged(f"the validation loss is no finite number after epoch {event.epoch:g}")


def _save(setup: Setup, account: Account, attempt: Attempt, training: Training) -> Checkpointed:
    attempt.check_owner()
    here: dict[str, Any] = {"precision": device.name_of(training.dtype), "stage": attempt.stage}
    if setup.weights is not None:
        here["weights"] = setup.weights.sha256
    numbers = {**state_numbers(training), **account.spent(), **here}
    digest = checkpoint.save(attempt.directory.path, state_tensors(training), numbers)
    return Checkpointed(step=training.tally.step, sha256=digest)


def best_accuracy(training: Training) -> float:
    """Raises Diverged where no evaluation had a finite loss."""
    if training.tally.best_accuracy is None:
        raise Diverged("no validation loss was a finite number")
    return training.tally.best_accuracy
