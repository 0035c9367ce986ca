"""Statistics for small differences: intervals, paired tests, calibration, and fronts of accuracy against cost.

Pure functions of plain numbers. NumPy and SciPy are imported inside the functions that need them: importing SciPy takes
longer than everything else that the leaderboard and the dashboard load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pydantic import ConfigDict, with_config

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution

Point = tuple[float, float]  # (cost, accuracy)


def wilson(accuracy: float, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion.

    Args:
        accuracy: share of correct answers, 0..1.
        n: number of images that it was measured on; with 0 the interval is (0, 1).
        z: normal quantile; the default gives a two-sided 95 % interval.

    Source: Wilson, 1927, J. Am. Stat. Assoc. 22:209, https://doi.org/10.1080/01621459.1927.10502953
    """
    if n <= 0:
        return 0.0, 1.0
    centre = accuracy + z * z / (2 * n)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def newcombe(first: float, second: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two proportions, first minus second, each of `n` images.

    The two are taken as independent. Models that err on the same images differ by less, so there it is too wide.
    Source: method 10 of Newcombe, 1998, Stat. Med. 17:873,
    https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I
    """
    return difference_interval(first, wilson(first, n), second, wilson(second, n))


def paired_difference(both: int, only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two proportions of the same `n` images, first minus second.

    Args:
        both, only_first, only_second: images that both got right, only the first, only the second.
        n: number of all images, at least 1.

    Source: method 10 of Newcombe, 1998, Stat. Med. 17:2635,
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C
    """
    neither = n - both - only_first - only_second
    first, second = (both + only_first) / n, (both + only_second) / n
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    spread = math.sqrt(first * (1 - first) * second * (1 - second)) * n * n
    shared = both * neither - only_first * only_second
    phi = (max(shared - n / 2, 0.0) if shared > 0 else shared) / spread if spread else 0.0  # of the answers

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    value = first - second
    return value - reach(first - low1, high2 - second), value + reach(high1 - first, second - low2)


def difference_interval(
    first: float, first_bounds: tuple[float, float], second: float, second_bounds: tuple[float, float]
) -> tuple[float, float]:
    """The interval of a difference of two independent figures, first minus second, from the intervals of both.

    Source: Zou and Donner, 2008, Stat. Med. 27:1693, https://doi.org/10.1002/sim.3095; of two Wilson intervals it is
    `newcombe`.
    """
    (low1, high1), (low2, high2) = first_bounds, second_bounds
    value = first - second
    return value - math.hypot(first - low1, high2 - second), value + math.hypot(high1 - first, second - low2)


# --- over seeds -----------------------------------------------------------------------------------------------


@with_config(ConfigDict(strict=True, allow_inf_nan=False))  # where it is part of a file's model
@dataclass(frozen=True)
class Sample:
    """Mean of the runs of one recipe over seeds, with the interval of the mean by Student's t."""

    mean: float
    sd: float | None  # with n - 1; None for one run
    n: int
    low: float | None
    high: float | None


def sample(values: Sequence[float], confidence: float = 0.95) -> Sample:
    """Mean, standard deviation and two-sided t interval of the mean. Raises ValueError without values.

    Source: Student, 1908, Biometrika 6:1, https://doi.org/10.1093/biomet/6.1.1
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to average")
    mean = math.fsum(values) / n
    if n == 1:
        return Sample(mean, None, 1, None, None)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile((1 + confidence) / 2, n - 1) * sd / math.sqrt(n)
    return Sample(mean, sd, n, mean - half, mean + half)


def sample_of_shares(values: Sequence[float]) -> Sample:
    """`sample` of accuracies or other shares, 0..1. The interval is the part of the t interval that lies in 0..1.

    The mean of shares is a share, so cutting off what is impossible leaves the coverage as it is. Of a few seeds that
    differ much, the interval may be all of 0..1: they say nothing. Raises ValueError without values.

    Source: Mandelkern, 2002, "Setting Confidence Intervals for Bounded Parameters", Statist. Sci. 17:149,
    https://doi.org/10.1214/ss/1030550859
    """
    return within_bounds(sample(values))


def within_bounds(found: Sample) -> Sample:
    """The sample of shares with its interval cut to 0..1."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def t_quantile(p: float, df: int) -> float:
    """The p quantile of Student's t distribution with `df` degrees of freedom; 0 < p < 1."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


# --- paired comparisons ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paired:
    """Two recipes over the same seeds: mean difference (first minus second), its interval and a two-sided p."""

    difference: float
    low: float | None
    high: float | None
    t: float | None
    p: float | None  # None: one seed, or no variation to test against
    n: int


def paired_t(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Paired:
    """Student's paired t test of two recipes, one value a seed each.

    Raises ValueError where the lengths differ or no value is given.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values are needed, got {len(first)} and {len(second)}")
    found = sample([a - b for a, b in zip(first, second)], confidence)
    if not found.sd:  # one pair, or every difference the same
        return Paired(found.mean, found.low, found.high, None, None, found.n)
    from scipy.special import stdtr

    t = found.mean / (found.sd / math.sqrt(found.n))
    return Paired(found.mean, found.low, found.high, t, 2 * float(stdtr(found.n - 1, -abs(t))), found.n)


def simultaneous(low: float, high: float, n: int, comparisons: int) -> tuple[float, float]:
    """A 95 % t interval widened so that `comparisons` such intervals hold together with 95 %, by Bonferroni.

    It excludes zero exactly where `bonferroni` of the p value is below 0.05.

    Args:
        low, high: bounds of the 95 % interval of a mean over `n` values.
        n: number of values; at least 2.
        comparisons: how many intervals are read together.

    Source: Dunn, 1961, J. Am. Stat. Assoc. 56:52, https://doi.org/10.1080/01621459.1961.10482090
    """
    middle = (low + high) / 2
    wider = t_quantile(1 - 0.025 / comparisons, n - 1) / t_quantile(0.975, n - 1)
    return middle - wider * (high - low) / 2, middle + wider * (high - low) / 2


def bonferroni(p: float, comparisons: int) -> float:
    """A p value adjusted for `comparisons` tests. Source: Dunn, 1961, as in `simultaneous`."""
    return min(1.0, p * comparisons)


@dataclass(frozen=True)
class McNemar:
    """Two models on the same images: how many only the first got right, only the second, and the p values."""

    only_first: int
    only_second: int
    exact: float  # two-sided binomial; conservative
    mid: float  # mid-p; its error rate is close to the nominal level, so it is the one to report


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test of two models on the same images, exact and mid-p.

    Sources: McNemar, 1947, Psychometrika 12:153, https://doi.org/10.1007/BF02295996; for mid-p Fagerland, Lydersen
    and Laake, 2013, BMC Med. Res. Methodol. 13:91, https://doi.org/10.1186/1471-2288-13-91
    """
    from scipy.special import bdtr

    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    up_to, below = float(bdtr(k, n, 0.5)), float(bdtr(k - 1, n, 0.5)) if k else 0.0  # P(X <= k), P(X < k)
    return McNemar(only_first, only_second, min(1.0, 2 * up_to), min(1.0, up_to + below))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for having tested several times, in the order given; None stays None.

    Source: Holm, 1979, Scand. J. Statist. 6:65, https://www.jstor.org/stable/4615733
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - place)))
        adjusted[i] = largest
    return adjusted


# --- classes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassFigures:
    """How one class was answered; a ratio without a denominator is 0."""

    count: int
    precision: float
    recall: float
    f1: float


def per_class(confusion: Sequence[Sequence[int]]) -> list[ClassFigures]:
    """Count, precision, recall and F1 of every class, from counts (classes, classes) as [label][predicted].

    Source: https://scikit-learn.org/stable/modules/model_evaluation.html#precision-recall-f-measure-metrics
    """
    import numpy as np

    table = np.asarray(confusion, dtype=np.float64)
    hits, actual, predicted = table.diagonal(), table.sum(1), table.sum(0)
    return [
        ClassFigures(
            count=int(n),
            precision=hit / answers if answers else 0.0,
            recall=hit / n if n else 0.0,
            f1=2 * hit / (n + answers) if n + answers else 0.0,
        )
        for hit, n, answers in zip(hits.tolist(), actual.tolist(), predicted.tolist())
    ]


def balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float:
    """The mean recall of the classes that have images; `confusion` as in `per_class`.

    Source: Brodersen et al., 2010, https://doi.org/10.1109/ICPR.2010.764
    """
    recalls = [of_class.recall for of_class in per_class(confusion) if of_class.count]
    return sum(recalls) / len(recalls) if recalls else 0.0


# --- fronts of accuracy against cost --------------------------------------------------------------------------


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that (cost, accuracy) points dominate, up to the reference's cost and down to its accuracy.

    Points outside the reference add nothing.
    Source: Zitzler and Thiele, 1999, IEEE Trans. Evol. Comput. 3:257, https://doi.org/10.1109/4235.797969
    """
    most, floor = reference
    area, reached = 0.0, floor
    for cost, accuracy in sorted(points, key=lambda p: (p[0], -p[1])):
        if cost < most and accuracy > reached:
            area += (most - cost) * (accuracy - reached)
            reached = accuracy
    return area


def knee(front: Sequence[Point]) -> int | None:
    """Index of the front's point farthest above the line between its ends, each axis scaled to 0..1.

    The front is sorted by cost, with rising accuracy. None with fewer than three points or where none lies above
    that line. After Satopää et al., 2011, "Finding a Kneedle in a Haystack", https://doi.org/10.1109/ICDCSW.2011.20
    """
    if len(front) < 3:
        return None
    (x0, y0), (x1, y1) = front[0], front[-1]
    heights = [(y - y0) / (y1 - y0) - (x - x0) / (x1 - x0) for x, y in front]
    best = max(range(len(front)), key=heights.__getitem__)
    return best if heights[best] > 1e-12 else None


def prices(front: Sequence[Point], step: float = 0.001) -> list[float | None]:
    """From each point of a front to the next: the added cost per `step` of accuracy; None for the last point."""
    added: list[float | None] = [(c1 - c0) / (a1 - a0) * step for (c0, a0), (c1, a1) in pairwise(front)]
    return [*added, None] if front else []
