"""Parameters that cover a search space evenly.

Continuous ranges are sampled by scrambled Sobol points (Owen, 1998, "Scrambling Sobol' and Niederreiter-Xing points";
https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.qmc.Sobol.html). Bergstra and Bengio, 2012 (JMLR 13)
compare such points with random ones and grids. A point depends on the seed and its number alone, so that a search is
the same however many trials run at once, and goes on after an interruption as if there had been none.
"""

from __future__ import annotations

import math
import random
import warnings
from functools import lru_cache

from suite.spec import Choice, LogFloat, Params, Range, Space, Value, combinations


def point(space: Space, seed: int, number: int) -> Params:
    """The `number`-th point of a space, from 0. A space of finitely many points is enumerated in random order, again
    and again."""
    if not space:
        return {}
    count = combinations(space)
    if count is not None:
        return _enumerated(space, seed, number, count)
    from scipy.stats import qmc  # here: it takes a good part of a second, which most commands need not spend

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the points are best in powers of two
        points = qmc.Sobol(len(space), rng=seed)
        if number:
            points.fast_forward(number)
        coordinates = points.random(1)[0]
    return {name: _value(space[name], float(u)) for name, u in zip(space, coordinates, strict=True)}


def _value(choices: Range, u: float) -> Value:
    """The value at a position in [0, 1) of a range."""
    if isinstance(choices, Choice):
        return choices.values[int(u * len(choices.values))]
    low, high = choices.low, choices.high
    if isinstance(choices, LogFloat):
        return min(high, max(low, math.exp(math.log(low) + u * (math.log(high) - math.log(low)))))
    return low + u * (high - low)


@lru_cache(maxsize=8)
def _order(seed: int, repetition: int, count: int) -> list[int]:
    """A permutation of the points of a finite space."""
    return random.Random(f"{seed} {repetition}").sample(range(count), count)


def _enumerated(space: Space, seed: int, number: int, count: int) -> Params:
    index = _order(seed, number // count, count)[number % count]
    found: Params = {}
    for name, choices in space.items():
        values = list(dict.fromkeys(choices.values)) if isinstance(choices, Choice) else [choices.low]
        index, position = divmod(index, len(values))
        found[name] = values[position]
    return found
