"""The recorded trainings on which searches are replayed: configurations, their curves, and what they cost."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import NamedTuple

from suite.spec import Params, Recipe

COLUMNS = ("model", "number", "seed", "share", "hits")

SEEDS = (0, 1)

SIZES = (32, 64, 128, 256)

RECIPES = {
    "net": Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=128),
    "lean-s": Recipe(lr=0.05, schedule="onecycle", epochs=3, batch_size=128),
    "head": Recipe(lr=0.01, schedule="cosine", epochs=9, batch_size=128),
}

EPOCHS = {model: recipe.epochs for model, recipe in RECIPES.items()}


class Point(NamedTuple):
    """A configuration."""

    lr: float
    momentum: float
    batch_size: int

    def params(self) -> Params:
        return self._asdict()


@cache
def points(model: str) -> tuple[Point, ...]:
    """The recorded configurations: the default recipe, and one at random in each cell of a grid of 8 by 8 over the
    logarithm of the learning rate and the momentum, for each batch size."""
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


def recorded(model: str) -> dict[int, Point]:
    """The configurations in the table, by number: of `net` one in four."""
    every = dict(enumerate(points(model)))
    if model != "net":
        return every
    return {n: p for n, p in every.items() if n == 0 or ((n - 1) // 8 % 8 % 2 == 0 and (n - 1) % 8 % 2 == 0)}
