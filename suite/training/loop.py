"""One training loop for everything that learns by gradient: a generator of events.

It knows no path, no logger and no pruner. Whoever runs it may stop after any event: the `Training` then
holds exactly what is needed to go on from that step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suite.spec import Evaluated, Progress, Recipe
from suite.spec.seeds import mix
from suite.training import cuda_graphs
from suite.training.augment import Prepare
from suite.training.evaluation import Examples, evaluate, wide
from suite.training.optimizer import learning_rate
from suite.training.state import Diverged, Step, Training, weights_now

PROGRESS_SECONDS = 0.5  # how often a running training speaks, and so how fast it hears


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Every image once; a last batch of one is left out, since batch norm cannot train on it."""
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1)


def epoch_order(seed: int, epoch: int, examples: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, 1, epoch))
    return torch.randperm(examples, generator=generator).to(device)


def evaluation_points(epochs: int, per_epoch: int, checks: Sequence[float]) -> list[tuple[int, float]]:
    """(step, epoch) of every evaluation: after each epoch, and after each of `checks`, which may be parts of one."""
    points = {max(1, round(epoch * per_epoch)): epoch for epoch in checks if epoch < epochs}
    points |= {epoch * per_epoch: float(epoch) for epoch in range(1, epochs + 1)}
    return sorted(points.items())


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
) -> Iterator[Progress | Evaluated]:
    """Train from `training.tally.step` to the end of the recipe.

    Yields Progress about twice a second and Evaluated after every epoch, and after those of `checks`. `freeze` puts
    frozen modules back into evaluation mode whenever the model is set to train. Raises Diverged.
    """
    for item in course(training, train, validation, recipe, prepare, seed=seed, freeze=freeze, checks=checks):
        if isinstance(item, Step):
            take(item)
        else:
            yield item


def course(
    training: Training,
    train: Examples,
    validation: Examples,
    recipe: Recipe,
    prepare: Prepare,
    *,
    seed: int,
    freeze: Callable[[nn.Module], None] | None = None,
    checks: Sequence[float] = (),
) -> Iterator[Step | Progress | Evaluated]:
    """`fit` with its steps left to the caller, who may take those of many trainings at once."""
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    if per_epoch == 0:
        raise ValueError(f"{len(train)} training images do not fill one batch of {recipe.batch_size}")
    total = per_epoch * recipe.epochs
    device, tally = training.device, training.tally
    order, ordered = torch.empty(0), -1
    rate, seconds_at_report, images_at_report = recipe.lr, tally.seconds, tally.images

    def report() -> Progress:
        nonlocal seconds_at_report, images_at_report
        loss = training.loss_sum.item() / training.losses  # the one synchronisation with the device between evaluations
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} before step {tally.step}")
        elapsed = tally.seconds - seconds_at_report
        event = Progress(
            step=tally.step,
            epoch=tally.step / per_epoch,
            loss=loss,
            lr=rate,
            images_per_second=(tally.images - images_at_report) / elapsed if elapsed > 0 else 0.0,
            seconds=tally.seconds,
        )
        training.loss_sum.zero_()
        training.losses, seconds_at_report, images_at_report = 0, tally.seconds, tally.images
        return event

    # A run may have stopped between an epoch and its evaluation: what is evaluated already is what counts.
    for until, epoch in evaluation_points(recipe.epochs, per_epoch, checks)[len(tally.curve) :]:
        training.model.train()
        if freeze is not None:
            freeze(training.model)
        clock = time.perf_counter()
        spoke = clock
        while tally.step < until:
            number, batch = divmod(tally.step, per_epoch)
            if number != ordered:
                order, ordered = epoch_order(seed, number, len(train), device), number
            rows = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            rate = learning_rate(recipe, tally.step, total)
            step = Step(training, recipe, train, rows, mix(seed, 2, tally.step), rate, prepare)
            asked = time.perf_counter()
            yield step
            now = time.perf_counter()
            if step.seconds is not None:
                clock += (now - asked) - step.seconds
            tally.images += len(rows)
            tally.step += 1
            if now - spoke > PROGRESS_SECONDS and tally.step < until:
                tally.seconds += time.perf_counter() - clock
                yield report()
                clock = spoke = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tally.seconds += time.perf_counter() - clock
        if training.losses:
            yield report()
        scores = evaluate(training.evaluated_model, validation, prepare, device, training.dtype)
        if tally.note(epoch, scores):
            training.best_logits = scores.logits
            training.best_state = {k: v.detach().clone() for k, v in training.evaluated_model.state_dict().items()}
        yield Evaluated(
            step=tally.step,
            epoch=epoch,
            accuracy=scores.accuracy,
            loss=scores.loss if math.isfinite(scores.loss) else None,
            seconds=tally.seconds,
        )


def take(step: Step, *, graphed: bool = True) -> None:
    """Carry out one step of one training; on a GPU all of it is one recorded graph, where the batch is a full one.

    With `graphed` false none is recorded: each keeps the memory that a step takes for itself.
    """
    training, recipe = step.training, step.recipe
    inputs, labels = step.batch()
    for group in training.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(step.rate)
        else:
            group["lr"] = step.rate
    whole = len(labels) == recipe.batch_size
    if graphed and training.recorded is None and whole and cuda_graphs.usable(training.device, training.dtype):
        training.recorded = cuda_graphs.record(
            lambda x, y: _learn(training, recipe, x, y), (inputs, labels), lambda: weights_now(training)
        )
    if training.recorded is not None and whole:
        step.note(training.recorded(inputs, labels))
    else:
        step.note(_learn(training, recipe, inputs, labels))


def _learn(training: Training, recipe: Recipe, inputs: Tensor, labels: Tensor) -> Tensor:
    """Forward, backward, update; returns the mean loss, detached. Nothing here waits for the device."""
    scaler = training.scaler
    with torch.autocast(training.device.type, training.dtype, enabled=training.dtype != torch.float32):
        logits = training.model(inputs)
    loss = F.cross_entropy(wide(logits), labels, label_smoothing=recipe.label_smoothing)
    training.optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    if recipe.clip_norm:
        scaler.unscale_(training.optimizer)
        parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    scaler.step(training.optimizer)
    scaler.update()
    return loss.detach()
