"""The training loop of everything that is trained by gradient descent, as a generator of events.

It writes no files and makes no decision about the trial. Its caller may stop after any event: the `Training` then holds
all that is needed to continue from that step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from suite.hardware.device import device_time
from suite.models.streaming import Streamed
from suite.spec import Evaluated, Progress, Recipe
from suite.spec.seeds import mix
from suite.training import cuda_graphs
from suite.training.augment import Prepare
from suite.training.evaluation import Examples, Scores, evaluate
from suite.training.optimizer import learning_rate, set_rate
from suite.training.state import Diverged, Step, Training, trained_state, updated_tensors
from suite.training.targets import Batch, balanced_order, class_weights, distilled, mean_loss

PROGRESS_SECONDS = 0.5  # between two Progress events; a verdict takes effect at the next event


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of batches in an epoch over `examples` images. A last batch of one is left out: batch norm cannot train
    on it."""
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1)


def epoch_order(seed: int, epoch: int, examples: int, device: torch.device) -> Tensor:
    """The order of the images in an epoch: a permutation (examples,) that depends on `seed` and `epoch` alone."""
    generator = torch.Generator().manual_seed(mix(seed, 1, epoch))
    return torch.randperm(examples, generator=generator).to(device)


def _order(recipe: Recipe, seed: int, epoch: int, train: Examples) -> Tensor:
    device = train.labels.device
    if recipe.balance == "sampler":
        return balanced_order(train.labels, mix(seed, 3, epoch)).to(device)
    return epoch_order(seed, epoch, len(train), device)


def total_steps(epochs: float, per_epoch: int) -> int:
    """Number of steps of a training over `epochs`, which may be fractional; at least one."""
    return max(1, round(epochs * per_epoch))


def evaluation_points(epochs: float, per_epoch: int, checks: Sequence[float]) -> list[tuple[int, float]]:
    """(step, epoch) of every evaluation, in order: after each epoch, at the end, and after each of `checks` before it.

    `checks` are epochs, possibly fractional, and fall on the nearest step. With few steps per epoch, several points
    share a step: the model is then evaluated once and reported for each of them, so that each is judged.
    """
    points = {(max(1, round(epoch * per_epoch)), float(epoch)) for epoch in checks if epoch < epochs}
    points |= {(epoch * per_epoch, float(epoch)) for epoch in range(1, math.ceil(epochs))}
    return sorted(points | {(total_steps(epochs, per_epoch), float(epochs))})


def fit(
    training: Training,
    train: Examples,
    validation: Examples,
    recipe: Recipe,
    prepare: Prepare,
    *,
    seed: int,
    freeze: Callable[[nn.Module], None] | None = None,
    checks: Sequence[float] = (),
    epochs: float | None = None,
) -> Iterator[Progress | Evaluated]:
    """Train from `training.tally.step` to the end of the recipe, or of the recipe's schedule over `epochs`.

    Yields Progress about every `PROGRESS_SECONDS`, and Evaluated after every epoch and after those of `checks`.
    `freeze` puts frozen modules back into evaluation mode; it is called whenever the model is put into training mode.
    `training` holds the weights and scores of the best evaluation. Raises Diverged if the training loss becomes
    infinite or NaN.
    """
    for item in training_loop(
        training, train, validation, recipe, prepare, seed=seed, freeze=freeze, checks=checks, epochs=epochs
    ):
        if isinstance(item, Step):
            run_step(item)
        else:
            yield item


def training_loop(
    training: Training,
    train: Examples,
    validation: Examples,
    recipe: Recipe,
    prepare: Prepare,
    *,
    seed: int,
    freeze: Callable[[nn.Module], None] | None = None,
    checks: Sequence[float] = (),
    epochs: float | None = None,
) -> Iterator[Step | Progress | Evaluated]:
    """`fit`, but yields each optimiser step for the caller to carry out, alone or together with those of others."""
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    if per_epoch == 0:
        raise ValueError(f"{len(train)} training images do not fill one batch of {recipe.batch_size}")
    epochs = recipe.epochs if epochs is None else epochs
    total = total_steps(epochs, per_epoch)
    device, tally = training.device, training.tally
    order, order_epoch = torch.empty(0), -1
    weights = class_weights(train.labels) if recipe.balance == "loss" else None
    reporter = _Reporter(training, per_epoch, recipe.lr)
    evaluated = tally.curve[-1][0] if tally.curve else 0.0  # a resumed training may have stopped before an evaluation
    points = [point for point in evaluation_points(epochs, per_epoch, checks) if point[1] > evaluated]
    for until, group in groupby(points, key=lambda point: point[0]):
        training.model.train()
        if freeze is not None:
            freeze(training.model)
        begin = reported = device_time(device)
        while tally.step < until:
            epoch, batch = divmod(tally.step, per_epoch)
            if epoch != order_epoch:
                order, order_epoch = _order(recipe, seed, epoch, train), epoch
            rows = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            reporter.rate = learning_rate(recipe, tally.step, total)
            step = Step(training, recipe, train, rows, mix(seed, 2, tally.step), reporter.rate, prepare, weights)
            asked = time.perf_counter()
            if isinstance(train.inputs, Streamed) and batch + 1 < per_epoch:
                step.following = order[(batch + 1) * recipe.batch_size : (batch + 2) * recipe.batch_size]
            yield step
            now = time.perf_counter()
            if step.seconds is not None:  # the device is idle at both times, see Step.seconds
                begin += (now - asked) - step.seconds
            tally.images += len(rows)
            tally.step += 1
            if now - reported > PROGRESS_SECONDS and tally.step < until:
                tally.seconds += device_time(device) - begin
                yield reporter.progress()
                begin = reported = device_time(device)
        tally.seconds += device_time(device) - begin
        if training.losses:
            yield reporter.progress()
        scores = evaluate(training.evaluated_model, validation, prepare, device, training.dtype)
        for _, point in group:
            yield _evaluated(training, point, scores)


@dataclass
class _Reporter:
    """Progress of a training, with averages over the steps since the last report."""

    training: Training
    per_epoch: int
    rate: float  # the current learning rate

    def __post_init__(self) -> None:
        self._seconds, self._images = self.training.tally.seconds, self.training.tally.images

    def progress(self) -> Progress:
        """Raises Diverged where the mean training loss is not finite."""
        training, tally = self.training, self.training.tally
        loss = training.loss_sum.item() / training.losses
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} before step {tally.step}")
        seconds, images = tally.seconds - self._seconds, tally.images - self._images
        training.loss_sum.zero_()
        training.losses, self._seconds, self._images = 0, tally.seconds, tally.images
        return Progress(
            step=tally.step,
            epoch=tally.step / self.per_epoch,
            loss=loss,
            lr=self.rate,
            images_per_second=images / seconds if seconds > 0 else 0.0,
            seconds=tally.seconds,
        )


def _evaluated(training: Training, epoch: float, scores: Scores) -> Evaluated:
    """Record an evaluation, keeping the weights and scores of the best one."""
    tally = training.tally
    if tally.note(epoch, scores):
        training.best_logits = scores.logits
        training.best_state = {k: v.detach().clone() for k, v in trained_state(training.evaluated_model).items()}
    return Evaluated(
        step=tally.step,
        epoch=epoch,
        accuracy=scores.accuracy,
        loss=scores.loss if math.isfinite(scores.loss) else None,
        seconds=tally.seconds,
    )


def run_step(step: Step, *, graphed: bool = True) -> None:
    """Carry out one optimiser step of one training. On a GPU, steps on full batches are replayed as a CUDA graph.

    Without `graphed` no graph is recorded: each graph reserves the memory that a step needs.
    """
    training, recipe = step.training, step.recipe
    batch = step.batch()
    for group in training.optimizer.param_groups:
        set_rate(group, step.rate)
    whole = len(batch[0]) == recipe.batch_size
    if graphed and training.recorded is None and whole and cuda_graphs.usable(training.device, training.dtype):
        training.recorded = cuda_graphs.record(
            lambda *batch: _update(training, recipe, batch), batch, lambda: updated_tensors(training)
        )
    if training.recorded is not None and whole:
        step.note(training.recorded(*batch))
    else:
        step.note(_update(training, recipe, batch))


def _answers(training: Training, inputs: Tensor) -> Tensor:
    """The teacher's scores for what the student sees, in the precision of the training."""
    assert training.teacher is not None
    with torch.inference_mode(), torch.autocast(training.device.type, training.dtype, training.dtype != torch.float32):
        scores = training.teacher(inputs)
    return scores.clone()  # of inference mode, autograd saves copies alone


def _update(training: Training, recipe: Recipe, batch: Batch) -> Tensor:
    """Forward pass, backward pass, optimiser update. Returns the mean loss, detached. Never waits for the device."""
    scaler = training.scaler
    with torch.autocast(training.device.type, training.dtype, enabled=training.dtype != torch.float32):
        logits = training.model(batch[0])
    loss = mean_loss(logits, batch[1:], recipe.label_smoothing)
    if training.teacher is not None:
        loss = distilled(loss, logits, _answers(training, batch[0]), recipe.distill)
    training.optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    if recipe.clip_norm:
        scaler.unscale_(training.optimizer)
        parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    scaler.step(training.optimizer)
    scaler.update()
    return loss.detach()
