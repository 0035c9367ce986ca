"""Benchmarks: ours and the plain alternative in turn, in one run, so that only ratios within it count.

Every benchmark is a generator of (name, value, unit, how it was obtained); `bench` collects them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suite.errors import InputError

ROUNDS = 3  # of each side, in turn; the median counts
TRAIN_IMAGES = 12_800  # images a round of `train`: 200 steps of the tutorial's 64
RECORDS = 10_000  # rows of `leaderboard`

Figure = tuple[str, float, str, str]


def startup() -> Iterator[Figure]:
    """The time until `mnist-suite --help` has printed."""
    command = [sys.executable, "-m", "suite.cli", "--help"]
    times = [_seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(2 * ROUNDS + 1)]
    times = times[1:]
    yield "startup.help", statistics.median(times), "s", f"median of {len(times)} processes, after a warm-up"


def leaderboard() -> Iterator[Figure]:
    """Ranking and printing 10,000 records that are in memory, and reading them from disk first."""
    from suite import leaderboard as board
    from suite import store
    from tui.synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, states=["finished"] * RECORDS, epochs=3)
        study = store.studies(root)[0]
        begin = time.perf_counter()
        states = study.states()
        yield "leaderboard.read", time.perf_counter() - begin, "s", f"{len(states)} trials from disk, once"
        rows = [board.row(study.name, state) for state in states]
        times = [_seconds(lambda: board.rank(rows)) for _ in range(ROUNDS)]
        yield "leaderboard.rank", statistics.median(times), "s", f"{len(rows)} rows, median of {ROUNDS}"


def tui() -> Iterator[Figure]:
    """The dashboard's budgets."""
    from tui.bench import BUDGETS
    from tui.bench import bench as measure

    for name, value in measure().items():
        unit = "MiB" if name.endswith("mib") else "s"
        yield f"tui.{name}", value, unit, f"budget {BUDGETS[name]:g} {unit}"


def train() -> Iterator[Figure]:
    """The tutorial's CNN at the tutorial's batch and rate: its own loop as written, and ours."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torchvision import datasets, transforms

    from suite import backbones, data, device, sources
    from suite import train as training
    from suite.augment import image_preparer
    from suite.spec import Augment, Progress, Recipe

    sources.fetch("mnist")
    place = device.pick("auto")

    class Tutorial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
            self.fc1, self.fc2 = nn.Linear(3136, 128), nn.Linear(128, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            return self.fc2(F.relu(self.fc1(x.flatten(1))))

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    held = datasets.MNIST(data.data_dir(), train=True, transform=transform)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.Subset(held, range(TRAIN_IMAGES)), batch_size=64, shuffle=True
    )
    plain_net = Tutorial().to(place)
    optimizer = torch.optim.SGD(plain_net.parameters(), lr=0.01, momentum=0.9)

    def plain() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(plain_net(images.to(place)), labels.to(place)).backward()
            optimizer.step()
        _settle(place)

    splits = data.search_splits("mnist")
    examples = training.Examples(
        torch.from_numpy(splits.train.images[:TRAIN_IMAGES]).to(place),
        torch.from_numpy(splits.train.labels[:TRAIN_IMAGES]).to(place),
    )
    recipe = Recipe(epochs=1)
    expects = backbones.preprocess(
        "cnn", channels=1, native_size=28, mean=(0.1307,), std=(0.3081,), size=None, pretrained=False
    )
    prepare = image_preparer(expects, Augment(), place)
    net = backbones.build("cnn", classes=10, channels=1, size=28, seed=0)
    dtype = device.precision("auto", place, net, training=True)

    def ours() -> None:
        run = training.begin(net, recipe, place, dtype)
        for event in training.fit(run, examples, examples, recipe, prepare, seed=0):
            if isinstance(event, Progress) and event.epoch >= 1:
                break  # the epoch is over; its evaluation is not part of what is compared
        _settle(place)

    sides: dict[str, list[float]] = {"plain": [], "ours": []}
    for round_number in range(ROUNDS + 1):  # the first warms up
        for name, work in (("plain", plain), ("ours", ours)):
            seconds = _seconds(work)
            if round_number:
                sides[name].append(TRAIN_IMAGES / seconds)
    how = f"{TRAIN_IMAGES} images, batch 64, median of {ROUNDS} in turn"
    for name, speeds in sides.items():
        precision = device.name_of(dtype) if name == "ours" else "fp32"
        yield f"train.{name}", statistics.median(speeds), "images/s", f"{how}, {precision}"
    ratios = [a / b for a, b in zip(sides["ours"], sides["plain"], strict=True)]
    yield "train.ratio", statistics.median(ratios), "x", f"pair by pair, {min(ratios):.2f} to {max(ratios):.2f}"


BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "startup": startup,
    "leaderboard": leaderboard,
    "tui": tui,
    "train": train,
}


def bench(name: str | None) -> Iterator[Figure]:
    """One benchmark, or all of them. Raises InputError."""
    if name is not None and name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; there is: {', '.join(BENCHMARKS)}.")
    for each in [name] if name else BENCHMARKS:
        yield from BENCHMARKS[each]()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from suite import device
    from suite.runner import packages

    place = device.pick("auto")
    return {"hardware": device.hardware(place), "date": time.strftime("%Y-%m-%d"), "torch": packages()["torch"]}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _settle(place: Any) -> None:
    """Wait until the device has done all it was given."""
    if place.type == "cuda":
        import torch

        torch.cuda.synchronize(place)
