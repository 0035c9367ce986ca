"""The recorded trainings on which searches are replayed: configurations, their accuracies, and what they cost.

`search_table.csv` has, for each configuration and each of two seeds, the right answers on the 6,000 validation images
of MNIST: after a complete training over a ninth of the epochs, over a third, and after each ninth of the whole one.
A row with fewer evaluations is of a training that diverged. `search_record` makes it.
"""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from suite.spec import Choice, LogFloat, Params, Recipe, Space, Uniform

SEEDS = (0, 1)

IMAGES = 6_000  # of validation

POINTS = 9  # evaluations of a whole training, evenly spaced

SIZES = (32, 64, 128, 256)

SPACE: Space = {
    "lr": LogFloat(low=1e-3, high=0.3),
    "momentum": Uniform(low=0.5, high=0.98),
    "batch_size": Choice(values=SIZES),
}

RECIPES = {
    "net": Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=128),
    "lean-s": Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=128),
    "head": Recipe(lr=0.01, schedule="cosine", epochs=9, batch_size=128),  # on features of the pretrained cnn
}

# Processor seconds of training for an epoch of 54,000 images, by model and batch size: one thread of an Intel Xeon that
# had other work, 26 November 2026, the lower of two measurements. Only their ratios matter here.
SECONDS = {
    "net": {32: 7.12, 64: 7.04, 128: 4.93, 256: 5.92},
    "lean-s": {32: 6.2, 64: 6.73, 128: 6.1, 256: 4.27},
    "head": {32: 1.03, 64: 0.58, 128: 0.34, 256: 0.3},
}


class Point(NamedTuple):
    """A configuration."""

    lr: float
    momentum: float
    batch_size: int

    def params(self) -> Params:
        return self._asdict()

    def place(self) -> tuple[float, float]:
        """Learning rate, on a logarithmic scale, and momentum, both in 0..1."""
        return math.log(self.lr / 1e-3) / math.log(0.3 / 1e-3), (self.momentum - 0.5) / 0.48


@cache
def points(model: str) -> tuple[Point, ...]:
    """The configurations: the default recipe, and one at random in each cell of a grid of 8 by 8 over the logarithm of
    the learning rate and the momentum, for each batch size."""
    drawn, recipe = random.Random(0), RECIPES[model]
    found = [Point(recipe.lr, recipe.momentum, recipe.batch_size)]
    low, high = math.log(1e-3), math.log(0.3)
    for size in SIZES:
        for row in range(8):
            for column in range(8):
                lr = math.exp(low + (high - low) * (row + drawn.random()) / 8)
                momentum = 0.5 + 0.48 * (column + drawn.random()) / 8
                found.append(Point(float(f"{lr:.4g}"), round(momentum, 4), size))
    return tuple(found[:-1])


@dataclass(frozen=True)
class Training:
    """A recorded configuration with one seed; accuracies on validation."""

    ninth: float  # after a complete training over a ninth of the epochs
    third: float
    curve: tuple[float, ...]  # of the whole training, `POINTS` evaluations unless it diverged
    value: float  # the best after a whole epoch, as a trial's record has it


@dataclass(frozen=True)
class Table:
    """The recorded trainings of a model. The first configuration is the default recipe."""

    model: str
    points: tuple[Point, ...]
    trainings: tuple[tuple[Training, Training], ...]  # by configuration and seed

    def seconds(self, number: int, share: float = 1.0) -> float:
        """Cost of training a configuration over a share of the epochs."""
        return share * RECIPES[self.model].epochs * SECONDS[self.model][self.points[number].batch_size]

    def nearest(self, wanted: Params, used: set[int]) -> int:
        """The recorded configuration nearest to the one that is wanted, of the same batch size where one is left."""
        point = Point(float(wanted["lr"]), float(wanted["momentum"]), int(wanted["batch_size"]))
        lr, momentum = point.place()

        def distance(number: int) -> tuple[bool, float]:
            other = self.points[number]
            x, y = other.place()
            return other.batch_size != point.batch_size, (x - lr) ** 2 + (y - momentum) ** 2

        return min((n for n in range(len(self.points)) if n not in used), key=distance)


@cache
def table(model: str) -> Table:
    """The recorded trainings of `model`, a key of `RECIPES`."""
    by_number: dict[int, dict[int, Training]] = {}
    with files("suite.bench").joinpath("search_table.csv").open() as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                by_number.setdefault(int(row["number"]), {})[int(row["seed"])] = _training(model, row)
    numbers = sorted(by_number)
    return Table(
        model,
        tuple(points(model)[number] for number in numbers),
        tuple((by_number[number][0], by_number[number][1]) for number in numbers),
    )


def _training(model: str, row: dict[str, str]) -> Training:
    def accuracy(hits: str) -> float:
        return int(hits) / IMAGES if hits else 0.1  # diverged before its first evaluation: chance

    curve = tuple(accuracy(hits) for hits in row["whole"].split())
    every = POINTS // RECIPES[model].epochs
    whole = curve[every - 1 :: every]
    return Training(accuracy(row["ninth"]), accuracy(row["third"]), curve, max(whole, default=0.1))
