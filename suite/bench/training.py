"""Benchmarks of training: the suite beside the loops of `baselines`, in turn, in one run.

Every figure says how it was obtained.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch
from torch import Tensor

from suite.bench import baselines
from suite.bench.measure import ROUNDS, Figure, in_turn, ratio, timed
from suite.bench.workload import (
    LITE,
    complete_training,
    examples,
    mnist_model,
    one_epoch,
    prepared_device,
    training_precision,
)
from suite.data.datasets import search_splits, test_split
from suite.data.splits import split_indices
from suite.hardware import device, flops
from suite.models import features
from suite.spec import Augment, Recipe
from suite.spec.load import load_experiment
from suite.training import evaluation
from suite.training import state as training_state
from suite.training.augment import training_preparer

IMAGES = 12_800  # in a round of `train`: 200 steps at the tutorial's batch size of 64


def train() -> Iterator[Figure]:
    """The tutorial's CNN at the tutorial's batch size and learning rate: its own loop as written, and ours."""
    place = prepared_device()
    splits = search_splits("mnist")
    images = baselines.mnist(train=True)
    training_rows, validation_rows = split_indices(images.targets.numpy())
    batches = baselines.loader(images, training_rows[:IMAGES])
    plain_model = baselines.Tutorial().to(place)
    optimizer = torch.optim.SGD(plain_model.parameters(), lr=0.01, momentum=0.9)

    model, expects = mnist_model("cnn", place, 0)
    recipe, dtype = Recipe(epochs=1), training_precision(model, expects, place, "cnn")
    run = training_state.begin(model, recipe, place, dtype)
    prepare = training_preparer(expects, Augment(), place)
    ours = one_epoch(run, examples(splits.train, place, IMAGES), recipe, prepare)
    found = in_turn(
        {"plain": lambda: baselines.train_epoch(plain_model, batches, optimizer, place), "ours": ours}, place
    )
    how = f"{IMAGES} images, batch 64, median of {ROUNDS} in turn"
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        yield f"train.{name}", IMAGES / statistics.median(seconds), "images/s", f"{how}, {kind}"
    yield ratio("train", found["plain"], found["ours"])
    how = f"validation, after the same {(ROUNDS + 1) * IMAGES} images"
    plain_accuracy = baselines.accuracy(plain_model, baselines.loader(images, validation_rows, 1000), place)
    yield "train.plain_accuracy", plain_accuracy, "", how
    scores = evaluation.evaluate(model, examples(splits.validation, place), prepare, place, dtype)
    yield "train.ours_accuracy", scores.accuracy, "", how


def time_to_99(seeds: int = 10, middle_seeds: int = 5) -> Iterator[Figure]:
    """Seconds of training to 99.0 % on test: our quick recipe over several seeds, and the tutorial's loop.

    The recipes were chosen on validation. Test is read to report how good they are; nothing is chosen by it.
    """
    place = prepared_device()
    splits = search_splits("mnist")
    arms = load_experiment("accuracy").arms
    test = examples(test_split("mnist"), place)

    def trainings(arm: str, count: int) -> tuple[list[float], list[float]]:
        """Seconds and test accuracy of each seed, after a warm-up with another seed."""
        seconds, accuracies = [], []
        complete_training(arms[arm].backbone, arms[arm].recipe, splits, place, seed=999)
        for seed in range(count):
            model, spent, expects = complete_training(arms[arm].backbone, arms[arm].recipe, splits, place, seed)
            prepare = training_preparer(expects, Augment(), place)
            accuracies.append(evaluation.evaluate(model, test, prepare, place, torch.float32).accuracy)
            seconds.append(spent)
        return seconds, accuracies

    quick, accuracies = trainings("quick", seeds)
    mean = statistics.fmean(quick)
    how = f"mean of {seeds} seeds, {min(accuracies):.4f} to {max(accuracies):.4f}"
    yield "time-to-99.ours_accuracy", statistics.fmean(accuracies), "", f"test, {how}"
    yield "time-to-99.ours", mean, "s", f"mean of {seeds} trainings, {min(quick):.2f} to {max(quick):.2f}"

    model = baselines.Tutorial().to(place)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = baselines.loader(baselines.mnist(train=True), range(60_000))
    tests = baselines.loader(baselines.mnist(train=False), range(10_000), 1000)
    spent, reached, epochs = 0.0, 0.0, 0
    while reached < 0.99 and epochs < 20:
        spent += timed(lambda: baselines.train_epoch(model, batches, optimizer, place), place)
        epochs += 1
        reached = baselines.accuracy(model, tests, place)
    yield "time-to-99.plain", spent, "s", f"{epochs} epochs of all 60,000 images, once: {reached:.4f} on test"
    yield "time-to-99.ratio", spent / mean, "x", "seconds of training, evaluation off the clock on both sides"

    middle, accuracies = trainings("middle", middle_seeds)
    how = f"mean of {middle_seeds} seeds, {min(accuracies):.4f} to {max(accuracies):.4f}"
    yield "middle.accuracy", statistics.fmean(accuracies), "", f"test, {how}"
    yield "middle.seconds", statistics.fmean(middle), "s", f"of training, {min(middle):.2f} to {max(middle):.2f}"


def finetune(size: int = 32, batches: int = 24) -> Iterator[Figure]:
    """Fine-tuning of all of EfficientNet-Lite0, batch 64: timm's model in the plain loop, and ours."""
    import timm

    place = prepared_device()
    splits = search_splits("mnist")
    plain_model = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=10).to(place)
    optimizer = torch.optim.SGD(plain_model.parameters(), lr=0.01, momentum=0.9)
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(64 * batches))

    model, expects = mnist_model(LITE, place, 0, size)
    recipe, dtype = Recipe(epochs=1), training_precision(model, expects, place, LITE)
    run = training_state.begin(model, recipe, place, dtype)
    prepare = training_preparer(expects, Augment(), place)
    ours = one_epoch(run, examples(splits.train, place, 64 * batches), recipe, prepare)
    found = in_turn(
        {"plain": lambda: baselines.train_epoch(plain_model, loader, optimizer, place), "ours": ours}, place
    )
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        how = f"{64 * batches} images at {size} px, batch 64, median of {ROUNDS} in turn, {kind}"
        yield f"finetune.{name}", 64 * batches / statistics.median(seconds), "images/s", how
    yield ratio("finetune", found["plain"], found["ours"])


def frozen_features(size: int = 64, images: int = 2_048) -> Iterator[Figure]:
    """Feature extraction by a frozen EfficientNet-Lite0: timm's model in float32, and ours."""
    import timm

    place = prepared_device()
    splits = search_splits("mnist")
    plain_model = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=0).to(place).eval()
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(images))
    model, expects = mnist_model(LITE, place, 0, size)
    dtype = device.precision("auto", place, model, training=False)
    inputs = examples(splits.train, place, images).inputs

    @torch.no_grad()
    def plain() -> None:
        for batch, _ in loader:
            plain_model(batch.to(place))

    def ours() -> None:
        for _ in features.extract(model, inputs, expects, dtype):
            pass

    found = in_turn({"plain": plain, "ours": ours}, place)
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        how = f"{images} images at {size} px, median of {ROUNDS} in turn, {kind}"
        yield f"features.{name}", images / statistics.median(seconds), "images/s", how
    yield ratio("features", found["plain"], found["ours"])


def roofline() -> Iterator[Figure]:
    """FLOP/s that training the tutorial's CNN achieves, against the best matrix product of this machine.

    After Williams et al., Roofline, 2009, https://doi.org/10.1145/1498765.1498785.
    """
    place = prepared_device()
    splits = search_splits("mnist")
    model, expects = mnist_model("cnn", place, 0)
    dtype = training_precision(model, expects, place, "cnn")
    a, b = (torch.randn(2048, 2048, device=place, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: _multiply(a, b, 4), place) for _ in range(2 * ROUNDS + 1)][1:]
    peak = 4 * 2 * 2048**3 / min(seconds)
    how = f"2048 x 2048 matrix product, {device.name_of(dtype)}, best of {len(seconds)}"
    yield "roofline.peak", peak, "FLOP/s", how
    for batch in (64, 256):
        recipe = Recipe(epochs=1, batch_size=batch)
        run = training_state.begin(model, recipe, place, dtype)
        work = one_epoch(
            run, examples(splits.train, place, IMAGES), recipe, training_preparer(expects, Augment(), place)
        )
        spent = statistics.median([timed(work, place) for _ in range(ROUNDS + 1)][1:])
        achieved = flops.count(model, expects.shape).training_flops * IMAGES / spent
        yield f"roofline.cnn_{batch}", achieved, "FLOP/s", f"batch {batch}, {100 * achieved / peak:.0f} % of the peak"


def _multiply(a: Tensor, b: Tensor, times: int) -> None:
    for _ in range(times):
        torch.mm(a, b)
