"""One training loop for everything that learns by gradient: a generator of events.

It knows no path, no logger and no pruner. Whoever runs it may stop after any event: the `Training` then
holds exactly what is needed to go on from that step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from suite.augment import Prepare
from suite.spec import Evaluated, Progress, Recipe

PROGRESS_SECONDS = 0.5  # how often a running training speaks, and so how fast it hears


class Diverged(Exception):
    """The training loss is no longer a finite number."""


@dataclass(frozen=True)
class Examples:
    """Inputs and labels, resident on the device.

    inputs: (N, C, H, W) uint8 images, or (N, D) float32 features. labels: (N,) int64.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Scores:
    accuracy: float
    loss: float
    logits: Tensor  # (N, classes) float32, on the CPU


@dataclass
class Tally:
    """How far a training came and how good it was: the plain numbers."""

    step: int = 0
    seconds: float = 0.0  # of training, evaluation off the clock
    images: int = 0  # seen, with repetition
    best_accuracy: float | None = None
    best_loss: float = math.inf
    best_epoch: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)  # (epoch, validation accuracy)

    def note(self, epoch: int, scores: Scores) -> bool:
        """Take an evaluation down; says whether it is the best so far. The lower loss wins a tie."""
        self.curve.append((epoch, scores.accuracy))
        best = (self.best_accuracy if self.best_accuracy is not None else -1.0, -self.best_loss)
        if (scores.accuracy, -scores.loss) <= best:
            return False
        self.best_accuracy, self.best_loss, self.best_epoch = scores.accuracy, scores.loss, epoch
        return True


@dataclass
class Training:
    """Everything of one training that changes while it runs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    device: torch.device
    dtype: torch.dtype  # of the arithmetic; weights stay float32
    scaler: torch.amp.GradScaler  # active for float16 alone
    tally: Tally = field(default_factory=Tally)
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_logits: Tensor | None = None  # on validation, (N, classes)

    @property
    def evaluated_model(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module


def begin(model: nn.Module, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Training:
    """Set up the optimiser over the parameters that require gradients."""
    model.to(device).to(memory_format=torch.channels_last)
    ema = None
    if recipe.ema:
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    return Training(model, make_optimizer(model, recipe), ema, device, dtype, scaler)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay leaves biases and norms alone, as is usual."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, recipe.beta2), fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The rate of one step: a function of the step alone, so that resuming needs no scheduler state."""
    warmup = recipe.warmup or (0.3 if recipe.schedule == "onecycle" else 0.0)
    rising = warmup * total
    if step < rising:
        start = 0.04 if recipe.schedule == "onecycle" else 0.0
        return recipe.lr * (start + (1 - start) * (step + 1) / math.ceil(rising))
    if recipe.schedule == "constant":
        return recipe.lr
    done = (step - rising) / max(1.0, total - rising)
    if recipe.schedule == "onecycle":
        return recipe.lr * (1 - done)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))


def mix(*numbers: int) -> int:
    """A 63-bit seed out of several small numbers; neighbours come out unrelated (SplitMix64's finaliser)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Every image once; a last batch of one is left out, since batch norm cannot train on it."""
    full, rest = divmod(examples, batch_size)
    return full + (rest > 1)


def epoch_order(seed: int, epoch: int, examples: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(mix(seed, 1, epoch))
    return torch.randperm(examples, generator=generator).to(device)


def fit(
    training: Training,
    train: Examples,
    validation: Examples,
    recipe: Recipe,
    prepare: Prepare,
    *,
    seed: int,
    freeze: Callable[[nn.Module], None] | None = None,
) -> Iterator[Progress | Evaluated]:
    """Train from `training.tally.step` to the end of the recipe.

    Yields Progress about twice a second and Evaluated after every epoch. `freeze` puts frozen modules back
    into evaluation mode whenever the model is set to train. Raises Diverged.
    """
    per_epoch = steps_per_epoch(len(train), recipe.batch_size)
    if per_epoch == 0:
        raise ValueError(f"{len(train)} training images do not fill one batch of {recipe.batch_size}")
    total = per_epoch * recipe.epochs
    device, tally = training.device, training.tally
    generator = torch.Generator(device)
    scaler = training.scaler
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    loss_sum, loss_steps, loss_images = torch.zeros((), device=device), 0, 0
    rate, seconds_at_report = recipe.lr, tally.seconds

    def report() -> Progress:
        nonlocal loss_steps, loss_images, seconds_at_report
        loss = loss_sum.item() / loss_steps  # the one synchronisation with the device between evaluations
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} before step {tally.step}")
        elapsed = tally.seconds - seconds_at_report
        event = Progress(
            step=tally.step,
            epoch=tally.step / per_epoch,
            loss=loss,
            lr=rate,
            images_per_second=loss_images / elapsed if elapsed > 0 else 0.0,
            seconds=tally.seconds,
        )
        loss_sum.zero_()
        loss_steps, loss_images, seconds_at_report = 0, 0, tally.seconds
        return event

    while (epoch := len(tally.curve)) < recipe.epochs:  # a run may have stopped between an epoch and its evaluation
        first = tally.step - epoch * per_epoch
        training.model.train()
        if freeze is not None:
            freeze(training.model)
        clock = time.perf_counter()
        spoke = clock
        order = epoch_order(seed, epoch, len(train), device)
        for batch in range(first, per_epoch):
            rows = order[batch * recipe.batch_size : (batch + 1) * recipe.batch_size]
            generator.manual_seed(mix(seed, 2, tally.step))
            inputs = prepare(train.inputs[rows], generator)
            labels = train.labels[rows]
            rate = learning_rate(recipe, tally.step, total)
            for group in training.optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, training.dtype, enabled=training.dtype != torch.float32):
                logits = training.model(inputs)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
            training.optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            if recipe.clip_norm:
                scaler.unscale_(training.optimizer)
                nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            scaler.step(training.optimizer)
            scaler.update()
            if training.ema is not None:
                training.ema.update_parameters(training.model)
            loss_sum += loss.detach()
            loss_steps += 1
            loss_images += len(rows)
            tally.images += len(rows)
            tally.step += 1
            now = time.perf_counter()
            if now - spoke > PROGRESS_SECONDS and batch + 1 < per_epoch:
                tally.seconds += time.perf_counter() - clock
                yield report()
                clock = spoke = time.perf_counter()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tally.seconds += time.perf_counter() - clock
        if loss_steps:
            yield report()
        scores = evaluate(training.evaluated_model, validation, prepare, device, training.dtype)
        if tally.note(epoch + 1, scores):
            training.best_logits = scores.logits
            training.best_state = {k: v.detach().clone() for k, v in training.evaluated_model.state_dict().items()}
        yield Evaluated(
            step=tally.step,
            epoch=epoch + 1,
            accuracy=scores.accuracy,
            loss=scores.loss if math.isfinite(scores.loss) else None,
            seconds=tally.seconds,
        )


@torch.inference_mode()
def evaluate(model: nn.Module, data: Examples, prepare: Prepare, device: torch.device, dtype: torch.dtype) -> Scores:
    """Accuracy and mean cross-entropy over all of `data`. Leaves the model in evaluation mode."""
    model.eval()
    batch = 250 if device.type == "cpu" else 2000  # on CPU the activations should fit the caches
    parts: list[Tensor] = []
    for start in range(0, len(data), batch):
        inputs = prepare(data.inputs[start : start + batch], None)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            parts.append(model(inputs).float())
    logits = torch.cat(parts)
    accuracy = int((logits.argmax(1) == data.labels).sum()) / len(data)
    loss = F.cross_entropy(logits, data.labels).item()
    return Scores(accuracy, loss, logits.cpu())


# --- state for checkpoints -------------------------------------------------------------------------------


def state_tensors(training: Training) -> dict[str, Tensor]:
    """All tensors that a later process needs to go on bit for bit."""
    tensors = {f"model.{k}": v for k, v in training.model.state_dict().items()}
    for index, entries in training.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)})
    if training.ema is not None:
        tensors.update({f"ema.{k}": v for k, v in training.ema.state_dict().items()})
    tensors.update({f"best.{k}": v for k, v in training.best_state.items()})
    if training.best_logits is not None:
        tensors["best_logits"] = training.best_logits
    tensors["rng.cpu"] = torch.get_rng_state()  # dropout draws from it
    if training.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(training.device)
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def state_numbers(training: Training) -> dict[str, Any]:
    """The plain values beside `state_tensors`."""
    return {"tally": asdict(training.tally), "scaler": training.scaler.state_dict()}


def restore(training: Training, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a saved state into a freshly begun training. Raises KeyError or RuntimeError where it does not fit."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    training.model.load_state_dict(part("model."))
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        if value.shape == like.shape:  # fused optimisers walk the memory: it must lie as the parameter's does
            value = torch.empty_like(like).copy_(value)
        entries.setdefault(int(index), {})[name] = value
    training.optimizer.load_state_dict(
        {"state": entries, "param_groups": training.optimizer.state_dict()["param_groups"]}
    )
    if training.ema is not None:
        training.ema.load_state_dict(part("ema."))
    training.best_state = {k: v.to(training.device) for k, v in part("best.").items()}
    torch.set_rng_state(tensors["rng.cpu"])
    if training.device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], training.device)
    training.best_logits = tensors.get("best_logits")
    training.scaler.load_state_dict(numbers["scaler"])
    training.tally = Tally(**{**numbers["tally"], "curve": [tuple(point) for point in numbers["tally"]["curve"]]})
