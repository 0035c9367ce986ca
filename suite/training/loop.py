"""One training loop for everything that learns by gradient: a generator of events.

It knows no path, no logger and no pruner. Whoever runs it may stop after any event: the `Training` then
holds exactly what is needed to go on from that step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from suite import graphs
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
    best_epoch: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)  # (epoch, validation accuracy)

    def note(self, epoch: float, scores: Scores) -> bool:
        """Take an evaluation down; says whether it is the best so far. The lower loss wins a tie."""
        self.curve.append((epoch, scores.accuracy))
        best = (self.best_accuracy if self.best_accuracy is not None else -1.0, -self.best_loss)
        if (scores.accuracy, -scores.loss) <= best:
            return False
        self.best_accuracy, self.best_loss, self.best_epoch = scores.accuracy, scores.loss, epoch
        return True


@dataclass(eq=False)
class Training:
    """Everything of one training that changes while it runs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    device: torch.device
    dtype: torch.dtype  # of the arithmetic; weights stay float32
    scaler: torch.amp.GradScaler  # active for float16 alone
    generator: torch.Generator = field(default_factory=torch.Generator)  # of augmentation, seeded anew at every step
    tally: Tally = field(default_factory=Tally)
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # since the last Progress, on the device
    losses: int = 0  # how many steps it sums
    recorded: graphs.Recorded | None = None  # the step as one CUDA graph
    best_state: dict[str, Tensor] = field(default_factory=dict)
    best_logits: Tensor | None = None  # on validation, (N, classes)

    @property
    def evaluated_model(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module


@dataclass
class Step:
    """One optimiser step that `course` asks whoever advances it to carry out before going on."""

    training: Training
    recipe: Recipe
    source: Examples
    rows: Tensor  # (B,) into source
    seed: int  # of the augmentation's draws
    rate: float
    prepare: Prepare
    seconds: float | None = None  # its share of a step that was taken together with others'; None: all that passed

    def batch(self) -> tuple[Tensor, Tensor]:
        """Prepared inputs (B, ...) and labels (B,)."""
        generator = self.training.generator
        generator.manual_seed(self.seed)
        return self.prepare(self.source.inputs[self.rows], generator), self.source.labels[self.rows]

    def note(self, loss: Tensor) -> None:
        """Enter the step's mean loss, a scalar on the device; everything that counts steps follows from here."""
        training = self.training
        if training.ema is not None:
            training.ema.update_parameters(training.model)
        training.loss_sum += loss
        training.losses += 1


def begin(model: nn.Module, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Training:
    """Set up the optimiser over the parameters that require gradients."""
    model.to(device).to(memory_format=torch.channels_last)
    ema = None
    if recipe.ema:
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    training = Training(model, make_optimizer(model, recipe, device), ema, device, dtype, scaler)
    training.loss_sum = torch.zeros((), device=device)
    training.generator = torch.Generator(device)
    return training


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Weight decay leaves biases and norms alone, as is usual."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if not recipe.weight_decay:
        groups = [{"params": trained}]  # one group is one call
    groups = [group for group in groups if group["params"]]
    graphed = device.type == "cuda"  # a recorded step reads its rate from memory
    lr = torch.tensor(recipe.lr, device=device) if graphed else recipe.lr
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, recipe.beta2)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True, capturable=graphed)
    return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


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
    if graphed and training.recorded is None and whole and graphs.usable(training.device, training.dtype):
        training.recorded = graphs.record(
            lambda x, y: _learn(training, recipe, x, y), (inputs, labels), lambda: _state(training)
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


def wide(scores: Tensor) -> Tensor:
    """At least single precision, for the softmax."""
    return scores if scores.dtype == torch.float64 else scores.float()


def _state(training: Training) -> list[Tensor]:
    """Every tensor that `_learn` changes."""
    moments = [v for s in training.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [*training.model.state_dict().values(), *moments]


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
