"""Benchmarks of training: ours beside the plain loops of `plain`, in turn, in one run.

What a figure rests on stands beside it. The plain side of a long race is measured on a few batches or trials and
multiplied, which its line says; ours is always run whole.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor, nn

from suite.bench import baselines
from suite.data import fetch
from suite.data import splits as data_splits
from suite.data.cache import data_dir
from suite.data.datasets import search_splits, test_split
from suite.data.splits import Labelled, Splits
from suite.execution.options import Options
from suite.execution.stop import Stop
from suite.execution.sweep import sweep
from suite.hardware import autotune, device, memory
from suite.models import backbones, features, heads
from suite.models.preprocessing import Preprocess, evaluation_preparer, preprocess
from suite.spec import Arm, Augment, Evaluated, Experiment, HeadOnly, Linear, Progress, Pruning, Recipe, load
from suite.store.study import StudyDir
from suite.training import evaluation, loop
from suite.training import state as training_state
from suite.training.augment import Prepare, feature_preparer, training_preparer
from suite.training.evaluation import Examples
from suite.training.stacking import Population
from suite.training.state import Step, Tally, Training

ROUNDS = 3  # of each side, in turn; the median counts

IMAGES = 12_800  # a round of `train`: 200 steps of the tutorial's 64

LITE = "timm:tf_efficientnet_lite0"

Figure = tuple[str, float, str, str]  # name, value, unit, how it was obtained


# --- what all races share --------------------------------------------------------------------------------------------


def place() -> torch.device:
    fetch.fetch("mnist")
    memory.keep_memory()
    return device.pick("auto")


def examples(part: Labelled, where: torch.device, most: int | None = None) -> Examples:
    return Examples(torch.from_numpy(part.images[:most]).to(where), torch.from_numpy(part.labels[:most]).to(where))


def model_for(backbone: str, where: torch.device, seed: int, size: int | None = None) -> tuple[nn.Module, Preprocess]:
    expects = preprocess(
        backbone, channels=1, native_size=28, mean=(0.1307,), std=(0.3081,), size=size, pretrained=False
    )
    return backbones.build(backbone, classes=10, channels=1, size=expects.size, seed=seed).to(where), expects


def precision(model: nn.Module, expects: Preprocess, where: torch.device, backbone: str) -> torch.dtype:
    return autotune.precision("auto", where, model, expects.shape, f"{backbone} at {expects.size} px, scratch")


def settle(where: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def timed(work: Callable[[], object], where: torch.device) -> float:
    settle(where)
    begin = time.perf_counter()
    work()
    settle(where)
    return time.perf_counter() - begin


def in_turn(
    sides: dict[str, Callable[[], object]], where: torch.device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds of each side, round by round, after a round that warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, work in sides.items():
            seconds = timed(work, where)
            if number:
                found[name].append(seconds)
    return found


def ratio(name: str, plain_seconds: list[float], our_seconds: list[float]) -> Figure:
    pairs = [a / b for a, b in zip(plain_seconds, our_seconds, strict=True)]
    return f"{name}.ratio", statistics.median(pairs), "x", f"pair by pair, {min(pairs):.2f} to {max(pairs):.2f}"


def one_epoch(
    run: Training, given: Examples, recipe: Recipe, prepare: Prepare, most: int | None = None
) -> Callable[[], None]:
    """The next epoch of a training, or its first steps; its evaluation is no part of what is compared."""

    def work() -> None:
        run.tally = Tally()
        for number, item in enumerate(loop.training_loop(run, given, given, recipe, prepare, seed=0)):
            if isinstance(item, Step):
                if most is not None and number >= most:
                    return
                loop.run_step(item)
            elif isinstance(item, Progress) and item.epoch >= 1:
                return

    return work


def whole(
    backbone: str, recipe: Recipe, splits: Splits, where: torch.device, seed: int
) -> tuple[nn.Module, float, float, Preprocess]:
    """One training from beginning to end: (model, seconds of training, validation accuracy, what it expects)."""
    net, expects = model_for(backbone, where, seed)
    run = training_state.begin(net, recipe, where, precision(net, expects, where, backbone))
    prepare = training_preparer(expects, recipe.augment, where)
    for _ in loop.fit(
        run, examples(splits.train, where), examples(splits.validation, where), recipe, prepare, seed=seed
    ):
        pass
    net.load_state_dict(run.best_state)
    return net, run.tally.seconds, run.tally.best_accuracy or 0.0, expects


@contextlib.contextmanager
def scratch_place() -> Iterator[Path]:
    """A results directory, with a cache that holds the data and nothing else, so that no feature is there yet."""
    before = os.environ.get("MNIST_SUITE_CACHE")
    held = data_dir()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        (cache / held.name).symlink_to(held)
        os.environ["MNIST_SUITE_CACHE"] = str(cache)
        try:
            yield Path(folder) / "results"
        finally:
            os.environ.pop("MNIST_SUITE_CACHE")
            if before is not None:
                os.environ["MNIST_SUITE_CACHE"] = before


def run_study(experiment: Experiment, results: Path, options: Options) -> tuple[float, StudyDir]:
    """A whole sweep: (seconds, its directory)."""
    begin = time.perf_counter()
    for _ in sweep(experiment, results, options=options, stop=Stop()):
        pass
    return time.perf_counter() - begin, StudyDir(results, experiment.name)


# --- the races -------------------------------------------------------------------------------------------------------


def train() -> Iterator[Figure]:
    """The tutorial's CNN at the tutorial's batch and rate: its own loop as written, and ours."""
    where = place()
    splits = search_splits("mnist")
    images = baselines.mnist(train=True)
    rows, held = data_splits.split(images.targets.numpy())
    batches = baselines.loader(images, rows[:IMAGES])
    plain_net = baselines.Tutorial().to(where)
    optimizer = torch.optim.SGD(plain_net.parameters(), lr=0.01, momentum=0.9)

    net, expects = model_for("cnn", where, 0)
    recipe, dtype = Recipe(epochs=1), precision(net, expects, where, "cnn")
    run = training_state.begin(net, recipe, where, dtype)
    prepare = training_preparer(expects, Augment(), where)
    ours = one_epoch(run, examples(splits.train, where, IMAGES), recipe, prepare)
    found = in_turn({"plain": lambda: baselines.train_epoch(plain_net, batches, optimizer, where), "ours": ours}, where)
    how = f"{IMAGES} images, batch 64, median of {ROUNDS} in turn"
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        yield f"train.{name}", IMAGES / statistics.median(seconds), "images/s", f"{how}, {kind}"
    yield ratio("train", found["plain"], found["ours"])
    seen = f"validation, after the same {(ROUNDS + 1) * IMAGES} images"
    checked = baselines.accuracy(plain_net, baselines.loader(images, held, 1000), where)
    yield "train.plain_accuracy", checked, "", seen
    scores = evaluation.evaluate(net, examples(splits.validation, where), prepare, where, dtype)
    yield "train.ours_accuracy", scores.accuracy, "", seen


def time_to_99(seeds: int = 10, middle_seeds: int = 5) -> Iterator[Figure]:
    """Seconds of training to 99.0 % on test: our quick recipe over seeds, and the tutorial's until it gets there.

    The recipes were chosen on validation before; test is read here to say how good they are, and chooses nothing.
    """
    where = place()
    splits = search_splits("mnist")
    arms = load.load("accuracy").arms
    labelled, _ = test_split("mnist")
    test = examples(labelled, where)

    def several(name: str, count: int) -> tuple[list[float], list[float]]:
        seconds, accuracies = [], []
        whole(arms[name].backbone, arms[name].recipe, splits, where, 999)  # warms up
        for seed in range(count):
            net, spent, _, expects = whole(arms[name].backbone, arms[name].recipe, splits, where, seed)
            prepare = evaluation_preparer(expects, where)
            accuracies.append(evaluation.evaluate(net, test, prepare, where, torch.float32).accuracy)
            seconds.append(spent)
        return seconds, accuracies

    quick, accuracies = several("quick", seeds)
    mean = statistics.fmean(quick)
    how = f"mean of {seeds} seeds, {min(accuracies):.4f} to {max(accuracies):.4f}"
    yield "time-to-99.ours_accuracy", statistics.fmean(accuracies), "", f"test, {how}"
    yield "time-to-99.ours", mean, "s", f"mean of {seeds} trainings, {min(quick):.2f} to {max(quick):.2f}"

    net = baselines.Tutorial().to(where)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    batches = baselines.loader(baselines.mnist(train=True), range(60_000))
    tests = baselines.loader(baselines.mnist(train=False), range(10_000), 1000)
    spent, reached, epochs = 0.0, 0.0, 0
    while reached < 0.99 and epochs < 20:
        spent += timed(lambda: baselines.train_epoch(net, batches, optimizer, where), where)
        epochs += 1
        reached = baselines.accuracy(net, tests, where)
    yield "time-to-99.plain", spent, "s", f"{epochs} epochs of all 60,000 images, once: {reached:.4f} on test"
    yield "time-to-99.ratio", spent / mean, "x", "seconds of training, evaluation off the clock on both sides"

    middle, accuracies = several("middle", middle_seeds)
    how = f"mean of {middle_seeds} seeds, {min(accuracies):.4f} to {max(accuracies):.4f}"
    yield "middle.accuracy", statistics.fmean(accuracies), "", f"test, {how}"
    yield "middle.seconds", statistics.fmean(middle), "s", f"of training, {min(middle):.2f} to {max(middle):.2f}"


def finetune(size: int = 32, batches: int = 24) -> Iterator[Figure]:
    """All of EfficientNet-Lite0, batch 64: timm's model in the plain loop, and ours."""
    import timm

    where = place()
    splits = search_splits("mnist")
    theirs = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=10).to(where)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(64 * batches))

    net, expects = model_for(LITE, where, 0, size)
    recipe, dtype = Recipe(epochs=1), precision(net, expects, where, LITE)
    run = training_state.begin(net, recipe, where, dtype)
    prepare = training_preparer(expects, Augment(), where)
    ours = one_epoch(run, examples(splits.train, where, 64 * batches), recipe, prepare)
    found = in_turn({"plain": lambda: baselines.train_epoch(theirs, loader, optimizer, where), "ours": ours}, where)
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        how = f"{64 * batches} images at {size} px, batch 64, median of {ROUNDS} in turn, {kind}"
        yield f"finetune.{name}", 64 * batches / statistics.median(seconds), "images/s", how
    yield ratio("finetune", found["plain"], found["ours"])


def frozen_features(size: int = 64, images: int = 2_048) -> Iterator[Figure]:
    """Features of a frozen EfficientNet-Lite0: timm's model as it comes, and ours."""
    import timm

    where = place()
    splits = search_splits("mnist")
    theirs = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=0).to(where).eval()
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(images))
    net, expects = model_for(LITE, where, 0, size)
    dtype = device.precision("auto", where, net, training=False)
    given = examples(splits.train, where, images).inputs

    @torch.no_grad()
    def plain_pass() -> None:
        for batch, _ in loader:
            theirs(batch.to(where))

    def our_pass() -> None:
        for _ in features.extract(net, given, expects, dtype):
            pass

    found = in_turn({"plain": plain_pass, "ours": our_pass}, where)
    for name, seconds in found.items():
        kind = device.name_of(dtype) if name == "ours" else "fp32"
        how = f"{images} images at {size} px, median of {ROUNDS} in turn, {kind}"
        yield f"features.{name}", images / statistics.median(seconds), "images/s", how
    yield ratio("features", found["plain"], found["ours"])


def head_sweep(trials: int = 50, epochs: int = 20, size: int = 64, limit: int = 6_000) -> Iterator[Figure]:
    """50 linear heads on frozen EfficientNet-Lite0: a sweep on features extracted once, and the plain frozen loop."""
    import timm

    where = place()
    arm = Arm(
        backbone=LITE,
        strategy=HeadOnly(),
        weights="pretrained",
        size=size,
        recipe=Recipe(lr=0.05, schedule="cosine", epochs=epochs, batch_size=128),
    )
    space = {key: choices for key, choices in load.load("mnist").space.items() if key != "batch_size"}
    experiment = Experiment(
        name="heads",
        question="How long do fifty heads take?",
        dataset="mnist",
        arms={"head": arm},
        space=space,
        trials=trials,
        pruning=None,
        limit=limit,
    )
    kinds = {"solo": Options(), "population": Options(population=25)}
    ours: dict[str, float] = {}
    for name, options in kinds.items():
        with scratch_place() as results:
            ours[name], study = run_study(experiment, results, options)
            best = max(state.best or 0.0 for state in study.states())
        how = f"{trials} trials of {epochs} epochs on {limit} images at {size} px, extraction included; best {best:.4f}"
        yield f"head-sweep.{name}", ours[name], "s", how

    body: Any = timm.create_model(LITE.removeprefix("timm:"), in_chans=1, num_classes=0).to(where)
    loader = baselines.loader(baselines.mnist(train=True, size=size), range(64 * 40), 64)
    baselines.train_head(body, nn.Linear(body.num_features, 10).to(where), loader, where, 3)
    seen, seconds = baselines.train_head(body, nn.Linear(body.num_features, 10).to(where), loader, where, 30)
    expected = seconds / seen * limit * epochs * trials
    yield "head-sweep.plain", expected, "s", f"extrapolated from {seen} images of the plain loop, fp32"
    for name, seconds in ours.items():
        yield f"head-sweep.{name}_ratio", expected / seconds, "x", "plain over ours"


def search(trials: int = 50) -> Iterator[Figure]:
    """50 trials of the tutorial's CNN over lr, momentum and batch size: `sweep` with halving, and plain Optuna."""
    where = place()
    recipe = Recipe(lr=0.05, schedule="onecycle", epochs=2, batch_size=128)
    experiment = Experiment(
        name="race",
        question="How long do fifty trials take?",
        dataset="mnist",
        arms={"cnn": Arm(backbone="cnn", recipe=recipe)},
        space=load.load("mnist").space,
        trials=trials,
        pruning=Pruning(first=0.25, factor=3),
    )
    with scratch_place() as results:
        seconds, study = run_study(experiment, results, Options())
        states = study.states()
    best = max(state.best or 0.0 for state in states if state.state == "finished")
    pruned = sum(state.state == "pruned" for state in states)
    how = f"{len(states)} trials, {pruned} of them pruned, all costs included"
    yield "sweep.ours", seconds, "s", how
    yield "sweep.ours_best", best, "", "validation accuracy"

    rows, held = data_splits.split(baselines.mnist(train=True).targets.numpy())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    sizes = (32, 64, 128, 256)  # one trial of each, since a small batch takes twice the time of a large one
    for size in sizes:
        asked.enqueue_trial({"batch_size": size})
    spent = timed(
        lambda: asked.optimize(lambda t: baselines.objective(t, where, rows, held), n_trials=len(sizes)), where
    )
    expected = spent / len(sizes) * trials
    yield "sweep.plain", expected, "s", f"extrapolated from {len(sizes)} trials, one of each batch size"
    yield "sweep.plain_best", asked.best_value, "", f"validation accuracy, of those {len(sizes)} alone"
    yield "sweep.ratio", expected / seconds, "x", "plain over ours"


def population(rounds: int = ROUNDS) -> Iterator[Figure]:
    """K trials as one stacked model against the same one after another: heads, `net` and `cnn`."""
    where = place()
    splits = search_splits("mnist")
    gpu = where.type == "cuda"
    rows = 64 * (200 if gpu else 12)
    images = examples(splits.train, where, rows)
    generator = torch.Generator().manual_seed(0)
    banks = Examples(torch.randn(rows, 1280, generator=generator).to(where), images.labels)
    plans = [("head", 32, banks), ("net", 32 if gpu else 8, images), ("cnn", 32 if gpu else 8, images)]
    for name, count, given in plans:

        def members(name: str = name, count: int = count, given: Examples = given) -> list[Iterator[object]]:
            return [_member(name, number, count, given, where) for number in range(count)]

        def one_by_one() -> None:
            for course in members():
                for item in course:
                    if isinstance(item, Step):
                        loop.run_step(item)
                    elif isinstance(item, Progress) and item.epoch >= 1:
                        break

        def together() -> None:
            population, live = Population(everywhere=True), members()
            while live:
                steps: list[Step] = []
                for course in list(live):
                    item = next(item for item in course if isinstance(item, Step | Evaluated))
                    if isinstance(item, Step):
                        steps.append(item)
                    else:
                        live.remove(course)
                for failure in population.run_steps(steps).values():
                    raise failure

        found = in_turn({"solo": one_by_one, "together": together}, where, rounds)
        how = f"{count} trainings of {rows // 64} steps of 64, median of {rounds} in turn"
        for side, seconds in found.items():
            yield f"population.{name}_{side}", count / statistics.median(seconds) * 3600, "trials/h", how
        yield ratio(f"population.{name}", found["solo"], found["together"])


def _member(name: str, number: int, count: int, given: Examples, where: torch.device) -> Iterator[object]:
    """One of K trainings, with a rate and a momentum of its own."""
    recipe = Recipe(epochs=1, lr=0.01 * (1 + number), momentum=0.5 + 0.45 * number / count)
    few = Examples(given.inputs[:64], given.labels[:64])
    if name == "head":
        net: nn.Module = heads.make(Linear(), given.inputs[:256], 10, 0)
        run = training_state.begin(net, recipe, where, torch.float32)
        return loop.training_loop(run, given, few, recipe, feature_preparer, seed=0)
    net, expects = model_for(name, where, 0)
    run = training_state.begin(net, recipe, where, precision(net, expects, where, name))
    return loop.training_loop(run, given, few, recipe, training_preparer(expects, Augment(), where), seed=0)


def roofline() -> Iterator[Figure]:
    """Arithmetic that training the tutorial's CNN achieves, against the best matrix product of this machine."""
    from suite.hardware import flops

    where = place()
    splits = search_splits("mnist")
    net, expects = model_for("cnn", where, 0)
    dtype = precision(net, expects, where, "cnn")
    a, b = (torch.randn(2048, 2048, device=where, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: _products(a, b), where) for _ in range(2 * ROUNDS + 1)][1:]
    peak = 2 * 2048**3 * 4 / min(seconds)
    yield (
        "roofline.peak",
        peak,
        "FLOP/s",
        f"2048 x 2048 matrix product, {device.name_of(dtype)}, best of {len(seconds)}",
    )
    for batch in (64, 256):
        recipe = Recipe(epochs=1, batch_size=batch)
        run = training_state.begin(net, recipe, where, dtype)
        work = one_epoch(
            run, examples(splits.train, where, IMAGES), recipe, training_preparer(expects, Augment(), where)
        )
        spent = statistics.median([timed(work, where) for _ in range(ROUNDS + 1)][1:])
        achieved = flops.count(net, expects.shape).training_flops * IMAGES / spent
        yield f"roofline.cnn_{batch}", achieved, "FLOP/s", f"batch {batch}, {100 * achieved / peak:.0f} % of the peak"


def _products(a: Tensor, b: Tensor) -> None:
    for _ in range(4):
        torch.mm(a, b)


RACES: dict[str, Callable[[], Iterator[Figure]]] = {
    "train": train,
    "time-to-99": time_to_99,
    "finetune": finetune,
    "features": frozen_features,
    "head-sweep": head_sweep,
    "sweep": search,
    "population": population,
    "roofline": roofline,
}
