"""The data, models and trainings that several benchmarks measure."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from suite.data.datasets import info
from suite.data.fetch import fetch
from suite.data.splits import Labelled, Splits
from suite.hardware import autotune, device
from suite.hardware.budget import result
from suite.hardware.memory import keep_memory
from suite.models import backbones
from suite.models.preprocessing import preprocess
from suite.spec import Choice, LogFloat, Preprocess, Progress, Range, Recipe, Uniform
from suite.training import loop
from suite.training import state as training_state
from suite.training.augment import Prepare, training_preparer
from suite.training.evaluation import Examples
from suite.training.state import Step, Tally, Training

MNIST_IMAGES = 60_000

LITE = "timm:tf_efficientnet_lite0"

SPACE: dict[str, Range] = {
    "lr": LogFloat(low=1e-3, high=0.3),
    "momentum": Uniform(low=0.5, high=0.98),
    "batch_size": Choice(values=(32, 64, 128, 256)),
}


def prepared_device() -> torch.device:
    """The best device of this machine, with MNIST in the cache."""
    fetch("mnist")
    keep_memory()
    return device.pick("auto")


def examples(part: Labelled, place: torch.device, most: int | None = None) -> Examples:
    """The first `most` images and labels, on the device."""
    return Examples(torch.from_numpy(part.images[:most]).to(place), torch.from_numpy(part.labels[:most]).to(place))


def mnist_model(backbone: str, place: torch.device, seed: int, size: int | None = None) -> tuple[nn.Module, Preprocess]:
    """A new model for MNIST on the device, and the input that it takes."""
    expects = preprocess(backbone, info("mnist"), size=size)
    return backbones.build(backbone, classes=10, channels=1, size=expects.size, seed=seed).to(place), expects


def training_precision(model: nn.Module, expects: Preprocess, place: torch.device, backbone: str) -> torch.dtype:
    """The precision that `--precision auto` chooses for training this model from scratch."""
    what = f"{backbone} at {expects.size} px, scratch"
    return result(autotune.precision("auto", place, model, expects.shape, what, images=10 * MNIST_IMAGES))


def one_epoch(run: Training, train: Examples, recipe: Recipe, prepare: Prepare) -> Callable[[], None]:
    """A function that trains for one more epoch, without the evaluation at its end."""

    def work() -> None:
        run.tally = Tally()
        for item in loop.training_loop(run, train, train, recipe, prepare, seed=0):
            if isinstance(item, Step):
                loop.run_step(item)
            elif isinstance(item, Progress) and item.epoch >= 1:
                return

    return work


def complete_training(
    backbone: str, recipe: Recipe, splits: Splits, place: torch.device, seed: int
) -> tuple[nn.Module, float, Preprocess]:
    """Train by the whole recipe: (the best model by validation, seconds of training, the input that it takes)."""
    model, expects = mnist_model(backbone, place, seed)
    run = training_state.begin(model, recipe, place, training_precision(model, expects, place, backbone))
    prepare = training_preparer(expects, recipe.augment, place)
    train, validation = examples(splits.train, place), examples(splits.validation, place)
    for _ in loop.fit(run, train, validation, recipe, prepare, seed=seed):
        pass
    model.load_state_dict(run.best_state)
    return model, run.tally.seconds, expects
