"""Statistics for small differences: intervals, paired tests, calibration, and fronts of accuracy against cost.

Pure functions of plain numbers. Nothing here reads a file or needs SciPy; the tests compare with SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson(accuracy: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval for a proportion measured on n images (Wilson, 1927, JASA 22:209)."""
    if n <= 0:
        return 0.0, 1.0
    centre = accuracy + z * z / (2 * n)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


Point = tuple[float, float]  # (cost, accuracy)


# --- over seeds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What a few runs of one recipe came to. The interval is for the mean, over seeds, by Student's t."""

    mean: float
    sd: float | None  # with n - 1; None for one run
    n: int
    low: float | None
    high: float | None


def sample(values: Sequence[float], confidence: float = 0.95) -> Sample:
    """Mean, standard deviation and interval of the mean. Raises ValueError for no values."""
    n = len(values)
    if n == 0:
        raise ValueError("no values to average")
    mean = math.fsum(values) / n
    if n == 1:
        return Sample(mean, None, 1, None, None)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = t_quantile((1 + confidence) / 2, n - 1) * sd / math.sqrt(n)
    return Sample(mean, sd, n, mean - half, mean + half)


def t_cdf(t: float, df: float) -> float:
    """P(T <= t) of Student's t with `df` degrees of freedom."""
    if t * t < df:  # near the middle the other form of the same ratio loses no digits
        middle = 0.5 * _beta_ratio(0.5, df / 2, t * t / (df + t * t))
        return 0.5 + math.copysign(middle, t)
    tail = 0.5 * _beta_ratio(df / 2, 0.5, df / (df + t * t))
    return 1 - tail if t > 0 else tail


def t_quantile(p: float, df: float) -> float:
    """The t below which a share p lies, by bisection of `t_cdf`; 0 < p < 1."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


def _beta_ratio(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1 - _beta_ratio(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    above, below = 1.0, 1 / (1 - (a + b) * x / (a + 1))  # Lentz: ratios of successive numerators and denominators
    value = below
    for m in range(1, 1000):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        change = 1.0
        for term in (even, odd):
            below = 1 / (1 + term * below or 1e-300)
            above = 1 + term / above or 1e-300
            change = below * above
            value *= change
        if abs(change - 1) < 1e-15:
            break
    return math.exp(front) * value / a


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
    """Student's paired t test. Raises ValueError where the lengths differ or nothing is there."""
    if len(first) != len(second):
        raise ValueError(f"paired values are needed, got {len(first)} and {len(second)}")
    found = sample([a - b for a, b in zip(first, second)], confidence)
    if not found.sd:  # one pair, or every difference the same
        return Paired(found.mean, found.low, found.high, None, None, found.n)
    t = found.mean / (found.sd / math.sqrt(found.n))
    return Paired(found.mean, found.low, found.high, t, 2 * t_cdf(-abs(t), found.n - 1), found.n)


@dataclass(frozen=True)
class McNemar:
    """Two models on the same images: how many only the first got right, only the second, and the p values."""

    only_first: int
    only_second: int
    exact: float  # two-sided binomial
    mid: float  # the mid-p form, the one to read: near its level, where the exact test is conservative


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test, exact and mid-p (Fagerland, Lydersen and Laake, 2013, BMC Med. Res. Methodol. 13:91)."""
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return McNemar(0, 0, 1.0, 1.0)
    way, below = 1, 0  # ways to choose i of n, and their sum for i < k
    for i in range(k):
        below += way
        way = way * (n - i) // (i + 1)
    exact = min(1.0, 2 * (below + way) / 2**n)
    return McNemar(only_first, only_second, exact, min(1.0, (2 * below + way) / 2**n))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values raised for having tested several times (Holm, 1979, Scand. J. Statist. 6:65); None stays None."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    raised: list[float | None] = [None] * len(p_values)
    most = 0.0
    for place, (p, i) in enumerate(order):
        most = max(most, min(1.0, p * (len(order) - place)))
        raised[i] = most
    return raised


# --- classes ---------------------------------------------------------------------------------------------------------


def per_class(confusion: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """Count, precision, recall and F1 of every class, from counts [label][predicted]; 0 where undefined."""
    table = np.asarray(confusion, dtype=np.float64)
    hits, actual, claimed = table.diagonal(), table.sum(1), table.sum(0)
    return [
        {
            "count": int(n),
            "precision": hit / c if c else 0.0,
            "recall": hit / n if n else 0.0,
            "f1": 2 * hit / (n + c) if n + c else 0.0,
        }
        for hit, n, c in zip(hits.tolist(), actual.tolist(), claimed.tolist())
    ]


# --- fronts of accuracy against cost --------------------------------------------------------------------------


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The area that (cost, accuracy) points dominate, up to the reference's cost and down to its accuracy.

    Points beyond the reference add nothing (Zitzler and Thiele, 1999, IEEE Trans. Evol. Comput. 3:257).
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

    The front runs from cheap to dear with rising accuracy. None with fewer than three points or where none lies
    above that line (the idea of Satopää et al., 2011, "Finding a Kneedle in a Haystack").
    """
    if len(front) < 3:
        return None
    (x0, y0), (x1, y1) = front[0], front[-1]
    heights = [(y - y0) / (y1 - y0) - (x - x0) / (x1 - x0) for x, y in front]
    best = max(range(len(front)), key=heights.__getitem__)
    return best if heights[best] > 1e-12 else None


def prices(front: Sequence[Point], step: float = 0.001) -> list[float | None]:
    """From each point of a front to the next: the added cost per `step` of accuracy; None after the last."""
    ahead: list[float | None] = [(c1 - c0) / (a1 - a0) * step for (c0, a0), (c1, a1) in pairwise(front)]
    return [*ahead, None] if front else []
