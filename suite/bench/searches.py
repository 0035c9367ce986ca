"""Benchmarks of whole searches and of stacked training, beside the plain alternative, in one run.

The plain side of a long search is measured on a few batches or trials and extrapolated, as its figure says. Ours is
always run completely.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

from suite.bench import baselines
from suite.bench.measure import ROUNDS, Figure, in_turn, ratio, timed
from suite.bench.workload import (
    LITE,
    SPACE,
    complete_training,
    examples,
    mnist_model,
    prepared_device,
    training_precision,
)
from suite.data.cache import data_dir
from suite.data.datasets import search_splits, test_split
from suite.data.splits import split_indices
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.models import heads
from suite.spec import Arm, Augment, Evaluated, Experiment, HeadOnly, Linear, Plugin, Progress, Pruning, Recipe
from suite.store.study import StudyDir
from suite.training import loop
from suite.training import state as training_state
from suite.training.augment import feature_preparer, training_preparer
from suite.training.evaluation import Examples, evaluate
from suite.training.stacking import Population
from suite.training.state import Step


@contextlib.contextmanager
def without_cached_features() -> Iterator[Path]:
    """A new results directory, and a cache that holds the data sets only, so that features are extracted anew."""
    before = os.environ.get("MNIST_SUITE_CACHE")
    data = data_dir()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        (cache / data.name).symlink_to(data)
        os.environ["MNIST_SUITE_CACHE"] = str(cache)
        try:
            yield Path(folder) / "results"
        finally:
            os.environ.pop("MNIST_SUITE_CACHE")
            if before is not None:
                os.environ["MNIST_SUITE_CACHE"] = before


def run_study(experiment: Experiment, results: Path, options: Options) -> tuple[float, StudyDir]:
    """A whole sweep: (seconds, its study)."""
    begin = time.perf_counter()
    for _ in sweep(experiment, results, options=options, stop=Stop()):
        pass
    return time.perf_counter() - begin, StudyDir(results, experiment.name)


def head_sweep(
    trials: int = 50, epochs: int = 20, size: int = 64, limit: int = 6_000, steps: int = 30
) -> Iterator[Figure]:
    """50 linear heads on frozen EfficientNet-Lite0: a sweep, which extracts features once, and the plain loop."""
    import timm

    place = prepared_device()
    arm = Arm(
        backbone=LITE,
        strategy=HeadOnly(),
        weights="pretrained",
        size=size,
        recipe=Recipe(lr=0.05, schedule="cosine", epochs=epochs, batch_size=128),
    )
    experiment = Experiment(
        name="heads",
        question="How long do fifty heads take?",
        dataset="mnist",
        arms={"head": arm},
        space={key: choices for key, choices in SPACE.items() if key != "batch_size"},
        trials=trials,
        pruning=None,
        limit=limit,
    )
    ours: dict[str, float] = {}
    for name, options in {"solo": Options(), "population": Options(population=25)}.items():
        with without_cached_features() as results:
            ours[name], study = run_study(experiment, results, options)
            best = max(state.best or 0.0 for state in study.states())
        how = f"{trials} trials of {epochs} epochs on {limit} images at {size} px, extraction included; best {best:.4f}"
        yield f"head-sweep.{name}", ours[name], "s", how

    body: Any = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=0).to(place)
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(64 * 40), 64)
    baselines.train_head(body, nn.Linear(body.num_features, 10).to(place), loader, place, 3)  # warm-up
    seen, seconds = baselines.train_head(body, nn.Linear(body.num_features, 10).to(place), loader, place, steps)
    expected = seconds / seen * limit * epochs * trials
    yield "head-sweep.plain", expected, "s", f"extrapolated from {seen} images of the plain loop, fp32"
    for name, seconds in ours.items():
        yield f"head-sweep.{name}_ratio", expected / seconds, "x", "plain over ours"


def search(trials: int = 50, seeds: int = 5) -> Iterator[Figure]:
    """50 trials of the tutorial's CNN over lr, momentum and batch size: `sweep`, and Optuna around the tutorial's loop.

    Both winners, chosen on validation, are trained again with fresh seeds and tested. The plain search would take an
    hour, so its winner is that of the same search run by the suite: TPE, constant rate, every trial in full.
    """
    place = prepared_device()
    ours = Recipe(lr=0.05, schedule="onecycle", epochs=2, batch_size=128)
    plans = {"ours": (ours, Pruning(), None), "plain": (Recipe(), None, Plugin(name="TPESampler"))}
    spent: dict[str, float] = {}
    for side, (recipe, pruning, sampler) in plans.items():
        experiment = Experiment(
            name="race",
            question="How long do fifty trials take?",
            dataset="mnist",
            arms={"cnn": Arm(backbone="cnn", recipe=recipe)},
            space=SPACE,
            trials=trials,
            pruning=pruning,
            sampler=sampler,
        )
        with without_cached_features() as results:
            spent[side], study = run_study(experiment, results, Options())
            states = study.states()
        finished = [state for state in states if state.state == "finished"]
        winner = max(finished, key=lambda state: state.best or 0.0)
        tested = _tested(winner.trial.recipe, seeds, place)
        how = f"test, mean of {seeds} fresh seeds of the best of {len(states)}, {min(tested):.4f} to {max(tested):.4f}"
        yield f"sweep.{side}_best", statistics.fmean(tested), "", how
        if side == "ours":
            how = f"{len(states)} trials, {len(states) - len(finished)} of them pruned, all costs included"
            yield "sweep.ours", spent["ours"], "s", how

    training_rows, validation_rows = split_indices(baselines.mnist(train=True).targets.numpy())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    sizes = (32, 64, 128, 256)  # one trial of each, since a small batch takes twice the time of a large one
    for size in sizes:
        plain.enqueue_trial({"batch_size": size})

    def objective(trial: optuna.Trial) -> float:
        return baselines.objective(trial, place, training_rows, validation_rows)

    expected = timed(lambda: plain.optimize(objective, n_trials=len(sizes)), place) / len(sizes) * trials
    yield "sweep.plain", expected, "s", f"extrapolated from {len(sizes)} trials, one of each batch size"
    yield "sweep.ratio", expected / spent["ours"], "x", "plain over ours"


def _tested(recipe: Recipe, seeds: int, place: torch.device) -> list[float]:
    """Test accuracies of the CNN trained by a recipe with fresh seeds."""
    splits, test = search_splits("mnist"), examples(test_split("mnist"), place)
    found: list[float] = []
    for seed in range(seeds):
        model, _, expects = complete_training("cnn", recipe, splits, place, seed=1_000 + seed)
        found.append(evaluate(model, test, training_preparer(expects, Augment(), place), place, torch.float32).accuracy)
    return found


def population(rounds: int = ROUNDS) -> Iterator[Figure]:
    """K trainings as one stacked model, and the same ones one after another: heads, `net` and `cnn`."""
    place = prepared_device()
    splits = search_splits("mnist")
    gpu = place.type == "cuda"
    rows = 64 * (200 if gpu else 12)
    images = examples(splits.train, place, rows)
    generator = torch.Generator().manual_seed(0)
    features = Examples(torch.randn(rows, 1280, generator=generator).to(place), images.labels)
    cases = [("head", 32, features), ("net", 32 if gpu else 8, images), ("cnn", 32 if gpu else 8, images)]
    for name, count, train in cases:

        def trainings(name: str = name, count: int = count, train: Examples = train) -> list[Iterator[object]]:
            return [_training(name, number, count, train, place) for number in range(count)]

        def one_by_one() -> None:
            for training in trainings():
                for item in training:
                    if isinstance(item, Step):
                        loop.run_step(item)
                    elif isinstance(item, Progress) and item.epoch >= 1:
                        break

        def stacked() -> None:
            stack, live = Population(everywhere=True), trainings()
            while live:
                steps: list[Step] = []
                for training in list(live):
                    item = next(item for item in training if isinstance(item, Step | Evaluated))
                    if isinstance(item, Step):
                        steps.append(item)
                    else:
                        live.remove(training)
                for failure in stack.run_steps(steps).values():
                    raise failure

        found = in_turn({"solo": one_by_one, "together": stacked}, place, rounds)
        how = f"{count} trainings of {rows // 64} steps of 64, median of {rounds} in turn"
        for side, seconds in found.items():
            yield f"population.{name}_{side}", count / statistics.median(seconds) * 3600, "trials/h", how
        yield ratio(f"population.{name}", found["solo"], found["together"])


def _training(kind: str, number: int, count: int, train: Examples, place: torch.device) -> Iterator[object]:
    """One of `count` trainings for one epoch, with a learning rate and a momentum of its own."""
    recipe = Recipe(epochs=1, lr=0.002 * (1 + number), momentum=0.5 + 0.4 * number / count)
    validation = Examples(train.inputs[:64], train.labels[:64])
    if kind == "head":
        head = heads.make(Linear(), train.inputs[:256], 10, 0)
        run = training_state.begin(head, recipe, place, torch.float32)
        return loop.training_loop(run, train, validation, recipe, feature_preparer, seed=0)
    model, expects = mnist_model(kind, place, 0)
    run = training_state.begin(model, recipe, place, training_precision(model, expects, place, kind))
    return loop.training_loop(run, train, validation, recipe, training_preparer(expects, Augment(), place), seed=0)
