"""The state of one training: model, optimiser, progress, and how it is saved and restored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from suite.hardware.memory import channels_last
from suite.models.streaming import Streamed
from suite.spec import Recipe
from suite.training import cuda_graphs
from suite.training.augment import Prepare
from suite.training.evaluation import Examples, Scores
from suite.training.optimizer import make_optimizer
from suite.training.targets import Batch, mixed, partners


class Diverged(Exception):
    """The loss is infinite or NaN."""


@dataclass
class Tally:
    """Progress and best scores of a training, as plain numbers."""

    step: int = 0
    seconds: float = 0.0  # of training, without evaluation
    images: int = 0  # trained on, counted once per epoch
    best_accuracy: float | None = None
    best_loss: float = math.inf
    best_epoch: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)  # (epoch, validation accuracy)

    def note(self, epoch: float, scores: Scores) -> bool:
        """Record an evaluation; returns whether it is the best so far.

        Of equal accuracies the one with the lower loss is better. Without a finite loss it is never the best.
        """
        self.curve.append((epoch, scores.accuracy))
        if not math.isfinite(scores.loss):
            return False
        best = (self.best_accuracy if self.best_accuracy is not None else -1.0, -self.best_loss)
        if (scores.accuracy, -scores.loss) <= best:
            return False
        self.best_accuracy, self.best_loss, self.best_epoch = scores.accuracy, scores.loss, epoch
        return True


@dataclass(eq=False)
class Training:
    """All of one training that changes while it runs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None
    device: torch.device
    dtype: torch.dtype  # of autocast; the weights are float32
    scaler: torch.amp.GradScaler  # enabled for float16 only
    generator: torch.Generator = field(default_factory=torch.Generator)  # of augmentation; seeded at every step
    tally: Tally = field(default_factory=Tally)
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))  # since the last Progress, on the device
    losses: int = 0  # number of steps in `loss_sum`
    teacher: nn.Module | None = None  # from the student's inputs to class scores; learns nothing
    recorded: cuda_graphs.Recorded | None = None  # a step as a CUDA graph
    best_state: dict[str, Tensor] = field(default_factory=dict)  # `trained_state` at the best evaluation; empty before
    best_logits: Tensor = field(default_factory=lambda: torch.empty(0))  # its validation scores (N, classes), CPU

    @property
    def evaluated_model(self) -> nn.Module:
        """The model that is evaluated and kept: the weight average if there is one."""
        return self.model if self.ema is None else self.ema.module


@dataclass
class Step:
    """One optimiser step, which the caller of `training_loop` carries out before it goes on."""

    training: Training
    recipe: Recipe
    source: Examples
    rows: Tensor  # (B,) indices into source
    seed: int  # of the augmentation
    rate: float  # learning rate
    prepare: Prepare
    class_weights: Tensor | None = None  # (classes,) in the loss; None: all alike
    # Set where steps of several trainings are carried out together: this training's share of the time. The device must
    # be idle before and after such a step.
    seconds: float | None = None
    following: Tensor | None = None  # the rows of the next step, to be read ahead where inputs are streamed

    def batch(self) -> Batch:
        """Prepared inputs with their labels, mixed and weighted as the recipe says."""
        generator = self.training.generator
        generator.manual_seed(self.seed)
        images = self.source.inputs[self.rows]
        if self.following is not None and isinstance(self.source.inputs, Streamed):
            self.source.inputs.expect(self.following)
        inputs, labels = self.prepare(images, generator), self.source.labels[self.rows]
        others, shares = labels, torch.ones(len(labels), device=labels.device)
        mixes = self.recipe.augment.mixes and inputs.ndim == 4  # images; features are not augmented
        if mixes:
            inputs, shares = mixed(inputs, self.recipe.augment, generator)
            others = partners(labels)
        elif self.class_weights is None:
            return inputs, labels
        weights = torch.stack((shares, 1 - shares), 1)
        if self.class_weights is not None:
            weights = weights * self.class_weights[torch.stack((labels, others), 1)]
        return inputs, labels, others, weights

    def note(self, loss: Tensor) -> None:
        """Record the mean loss of the step, a scalar on the device, and update the weight average."""
        training = self.training
        if training.ema is not None:
            training.ema.update_parameters(training.model)
        training.loss_sum += loss
        training.losses += 1


def begin(model: nn.Module, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Training:
    """A new training of `model` on `device`, of the parameters that require gradients."""
    channels_last(model.to(device))
    ema = None
    if recipe.ema:
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    training = Training(model, make_optimizer(model, recipe, device), ema, device, dtype, scaler)
    training.loss_sum = torch.zeros((), device=device)
    training.generator = torch.Generator(device)
    return training


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` without its frozen parameters, which a later process has from its initial weights."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def load_trained_state(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load what `trained_state` gives, or a whole state dict. Raises RuntimeError where it does not fit the model."""
    missing, unknown = model.load_state_dict(tensors, strict=False)
    if lost := [*unknown, *(name for name in missing if name in trained_state(model))]:
        raise RuntimeError(f"the saved state does not fit the model: {lost[0]} and {len(lost) - 1} more")


def updated_tensors(training: Training) -> list[Tensor]:
    """All tensors that an optimiser step changes."""
    moments = [v for s in training.optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    return [*training.model.state_dict().values(), *moments]


def state_tensors(training: Training) -> dict[str, Tensor]:
    """All tensors that a later process needs to continue bit for bit, on the CPU."""
    tensors = {f"model.{k}": v for k, v in trained_state(training.model).items()}
    for index, entries in training.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{index}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)})
    if training.ema is not None:
        tensors.update({f"ema.{k}": v for k, v in trained_state(training.ema).items()})
    tensors.update({f"best.{k}": v for k, v in training.best_state.items()})
    if len(training.best_logits):
        tensors["best_logits"] = training.best_logits
    tensors["rng.cpu"] = torch.get_rng_state()  # used by dropout
    if training.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(training.device)
    return {k: v.detach().cpu().contiguous() for k, v in tensors.items()}


def state_numbers(training: Training) -> dict[str, Any]:
    """The plain values of the state, as JSON; the tensors are in `state_tensors`."""
    return {"tally": asdict(training.tally), "scaler": training.scaler.state_dict()}


def restore(training: Training, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Load a saved state into a new training. Raises KeyError or RuntimeError where it does not fit the model."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    load_trained_state(training.model, part("model."))
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        if value.shape == like.shape:  # fused optimisers need the memory format of the parameter
            value = torch.empty_like(like).copy_(value)
        entries.setdefault(int(index), {})[name] = value
    training.optimizer.load_state_dict(
        {"state": entries, "param_groups": training.optimizer.state_dict()["param_groups"]}
    )
    if training.ema is not None:
        load_trained_state(training.ema, part("ema."))
    training.best_state = {k: v.to(training.device) for k, v in part("best.").items()}
    torch.set_rng_state(tensors["rng.cpu"])
    if training.device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], training.device)
    training.best_logits = tensors.get("best_logits", training.best_logits)
    training.scaler.load_state_dict(numbers["scaler"])
    training.tally = Tally(**{**numbers["tally"], "curve": [tuple(point) for point in numbers["tally"]["curve"]]})
