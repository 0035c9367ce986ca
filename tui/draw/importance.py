"""How strongly accuracy depends on each hyperparameter, as a bar chart in text. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tui.draw.aligned import right, widest
from tui.draw.cells import title
from tui.draw.figures import finished, tuned_keys
from tui.model.snapshot import Run


@dataclass(frozen=True)
class Importance:
    """How strongly accuracy depends on one hyperparameter."""

    key: str
    strength: float  # 0 to 1
    n: int  # number of runs
    rising: bool | None  # whether larger values are better; None for values that are not numbers


def importances(runs: Sequence[Run]) -> list[Importance]:
    """How strongly accuracy depends on each hyperparameter, one at a time, the strongest first.

    For numbers, the absolute value of Spearman's rank correlation; for other values, the correlation ratio of the
    ranks. Neither sees interactions, and neither implies a cause. Reports have fANOVA importances in addition; these
    here need neither optuna nor scikit-learn, and are fast enough to follow a running study.
    """
    found: list[Importance] = []
    for key in tuned_keys(runs):
        pairs = [(r.row.tuned[key], r.row.accuracy) for r in finished(runs) if key in r.row.tuned]
        if len(pairs) < 3 or len({str(value) for value, _ in pairs}) < 2:
            continue
        accuracies = ranks([float(accuracy or 0.0) for _, accuracy in pairs])
        values = [value for value, _ in pairs]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            rho = correlation(ranks([float(v) for v in values]), accuracies)
            found.append(Importance(key, abs(rho), len(pairs), rho > 0))
        else:
            found.append(Importance(key, correlation_ratio([str(v) for v in values], accuracies), len(pairs), None))
    return sorted(found, key=lambda one: -one.strength)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their ranks.

    Instead of `scipy.stats.rankdata`, since importing scipy.stats takes longer than starting the dashboard; the
    ranked method of `statistics.correlation` needs Python 3.12.
    """
    indices = sorted(range(len(values)), key=lambda i: values[i])
    result = [0.0] * len(values)
    start = 0
    while start < len(indices):
        end = start
        while end + 1 < len(indices) and values[indices[end + 1]] == values[indices[start]]:
            end += 1
        for i in indices[start : end + 1]:
            result[i] = (start + end) / 2 + 1
        start = end + 1
    return result


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation; 0 if one of the two is constant."""
    try:
        return statistics.correlation(a, b)
    except statistics.StatisticsError:
        return 0.0


def correlation_ratio(groups: Sequence[str], values: Sequence[float]) -> float:
    """The correlation ratio eta, 0 to 1: the square root of the share of the variance that lies between the groups.

    Source: https://en.wikipedia.org/wiki/Correlation_ratio
    """
    mean = statistics.fmean(values)
    total = sum((v - mean) ** 2 for v in values)
    if total == 0:
        return 0.0
    members: dict[str, list[float]] = {}
    for group, value in zip(groups, values):
        members.setdefault(group, []).append(value)
    between = sum(len(m) * (statistics.fmean(m) - mean) ** 2 for m in members.values())
    return math.sqrt(between / total)


def importance_lines(runs: Sequence[Run], width: int) -> list[str]:
    """The importances as a bar chart in text, `width` cells wide at most."""
    found = importances(runs)
    if not found:
        return ["At least three finished runs with differing tuned values are needed."]
    name = widest([title(one.key) for one in found])
    room = max(4, min(50, width - name - 34))
    lines = []
    for one in found:
        sign = {True: "↑ more is better", False: "↓ less is better", None: "  by value"}[one.rising]
        bar = "█" * round(one.strength * room)
        lines.append(f"{right(title(one.key), name)} ▕{bar:<{room}}▏{one.strength:.2f}  n={one.n}  {sign}")
    return [*lines, "", "Rank correlation with validation accuracy, one at a time; it shows no cause."]
