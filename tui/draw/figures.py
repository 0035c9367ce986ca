"""The figures of the plots screen: one pure function each, from runs to a `Figure`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from suite.ranking.leaderboard import COLUMNS, pareto
from tui.draw.aligned import right, widest
from tui.draw.cells import duration, title
from tui.draw.chart import GLYPHS, STYLES, Axis, Series
from tui.model.board import row_value
from tui.model.snapshot import Run

LINEAR_COSTS = frozenset({"latency"})
FINE = 0.95  # best accuracy from which accuracies are drawn by the logarithm of the error
MOST_LINES = 60  # curves in the figure of intermediate values


@dataclass(frozen=True)
class Figure:
    """What a chart shows."""

    series: tuple[Series, ...]
    x: Axis
    y: Axis
    notes: tuple[str, ...] = ()  # lines below the chart


def percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _finished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.row.state == "finished" and run.row.accuracy is not None]


def _by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.row.number):
        arms.setdefault(run.row.arm, []).append(run)
    return dict(sorted(arms.items()))


def _marks(arm: str, arms: Sequence[str]) -> tuple[str, str]:
    """Style and glyph of an arm. `arms` are all arms there are, so that a filter does not change them."""
    place = arms.index(arm) if arm in arms else 0
    return STYLES[(place + place // len(GLYPHS)) % len(STYLES)], GLYPHS[place % len(GLYPHS)]


def all_arms(runs: Sequence[Run]) -> list[str]:
    """The names of arms, in the order in which they get glyphs and colours."""
    return sorted({run.row.arm for run in runs})


def _points(runs: Sequence[Run], arms: Sequence[str], place: Callable[[Run], tuple[float, float]]) -> list[Series]:
    """A series of points for each arm."""
    arms = arms or all_arms(runs)
    return [
        Series(arm, [place(run) for run in members], "points", *_marks(arm, arms))
        for arm, members in _by_arm(runs).items()
    ]


def pareto_figure(runs: Sequence[Run], cost: str, *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Accuracy against a cost, with the Pareto front; the notes tell the cost of each step along the front."""
    done = [run for run in _finished(runs) if getattr(run.row, cost) is not None]
    front = pareto([run.row for run in done], cost)
    series = _points(done, arms, lambda run: (float(getattr(run.row, cost)), run.row.accuracy or 0.0))
    steps = Series("Pareto front", [(float(getattr(r, cost)), r.accuracy or 0.0) for r in front], "steps", "strong")
    text = COLUMNS[cost].text
    notes: list[str] = []
    for cheaper, dearer in pairwise(front):
        gain = (dearer.accuracy or 0.0) - (cheaper.accuracy or 0.0)
        before, after = getattr(cheaper, cost), getattr(dearer, cost)
        times = f"{after / before:.3g}x the {title(cost)}" if before else f"any {title(cost)} at all"
        notes.append(
            f"{cheaper.number:04d} → {dearer.number:04d}: +{100 * gain:.2f} pp for {times}"
            f" ({text(before)} → {text(after)}), {dearer.arm}"
        )
    y, left_out = _accuracy([r.row.accuracy or 0.0 for r in done], linear, [r.accuracy or 0.0 for r in front])
    x = Axis(title(cost), log=cost not in LINEAR_COSTS, text=text)
    return Figure((steps, *series), x, y, (*left_out, *notes))


def _accuracy(values: Sequence[float], linear: bool, keep: Sequence[float] = ()) -> tuple[Axis, tuple[str, ...]]:
    """The axis of accuracies, and a note on those that lie below it.

    Above FINE it is logarithmic in the error, and the lowest tenth is left out: a few trials that learnt nothing would
    press all others into one row. `linear` turns both off; what is in `keep` stays.
    """
    name = "validation accuracy"
    known = sorted(values)
    if linear or not known or known[-1] < FINE:
        return Axis(name, text=percent), ()
    low = min([known[len(known) // 10], *keep])
    below = sum(value < low for value in known)
    notes = (f"{below} below {percent(low)} not shown; L shows all",) if below else ()
    return Axis(f"{name}, by the logarithm of the error", error=True, text=percent, low=low), notes


def history_figure(runs: Sequence[Run], *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Accuracy by trial number, and the best of the finished trials up to there."""
    known = [run for run in runs if run.row.accuracy is not None]
    best: list[tuple[float, float]] = []
    top = -math.inf
    for run in sorted(known, key=lambda run: (run.row.number, run.row.study)):
        if run.row.state == "finished":
            top = max(top, run.row.accuracy or 0.0)
        if math.isfinite(top):
            best.append((float(run.row.number), top))
    series = _points(known, arms, lambda run: (float(run.row.number), run.row.accuracy or 0.0))
    y, notes = _accuracy([run.row.accuracy or 0.0 for run in known], linear)
    return Figure((Series("best so far", best, "steps", "strong"), *series), Axis("trial number", whole=True), y, notes)


def intermediate_figure(runs: Sequence[Run], *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Validation accuracy by epoch of the best MOST_LINES runs."""
    shown = sorted((r for r in runs if r.row.curve), key=lambda r: -(r.row.accuracy or 0.0))
    arms = arms or all_arms(runs)
    named: set[str] = set()
    series: list[Series] = []
    for run in reversed(shown[:MOST_LINES]):
        points = [(float(epoch), accuracy) for epoch, accuracy in epochs(run)]
        name = run.row.arm if run.row.arm not in named else ""
        named.add(run.row.arm)
        kind = "line" if len(points) > 1 else "points"
        series.append(Series(name, points, kind, *_marks(run.row.arm, arms)))
    left_out = len(shown) - MOST_LINES
    notes = (f"The {MOST_LINES} best of {len(shown)} runs.",) if left_out > 0 else ()
    y, below = _accuracy([value for one in series for _, value in one.points], linear)
    return Figure(tuple(series), Axis("epoch", whole=True), y, (*notes, *below))


def epochs(run: Run) -> list[tuple[float, float]]:
    """(epoch, accuracy) pairs."""
    return list(run.record.curve) if run.record is not None else list(zip(run.row.epochs, run.row.curve))


def slice_figure(runs: Sequence[Run], key: str, *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Accuracy against one hyperparameter."""
    points = {run.key: row_value(run.row, key) for run in runs}
    done = [run for run in runs if run.row.accuracy is not None and points[run.key] is not None]
    axis, place = _axis_of(key, [points[run.key] for run in done])
    series = _points(done, arms, lambda run: (place(points[run.key]), run.row.accuracy or 0.0))
    y, notes = _accuracy([r.row.accuracy or 0.0 for r in done], linear)
    return Figure(tuple(series), axis, y, notes)


def _axis_of(key: str, values: Sequence[object]) -> tuple[Axis, Callable[[object], float]]:
    """An axis for the values of a hyperparameter, and the position of a value on it.

    Numbers that span a decade or more get a logarithmic axis, values that are not numbers a category each.
    """
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and values:
        numbers = [float(v) for v in values]  # type: ignore[arg-type]
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= 10
        return Axis(title(key), log=log, text=lambda v: f"{v:.3g}"), lambda v: float(v)  # type: ignore[arg-type]
    names = sorted({str(v) for v in values})
    places = {name: float(i) for i, name in enumerate(names)}
    labels = tuple((place, name) for name, place in places.items())
    return Axis(title(key), labels=labels, low=-0.5, high=len(names) - 0.5), lambda v: places[str(v)]


def parallel_figure(runs: Sequence[Run]) -> Figure:
    """Parallel coordinates: an axis for each hyperparameter, a line for each run; the best quarter is highlighted.

    Every axis is scaled to 0..1 by itself; the notes tell its ends.
    """
    done = _finished(runs)
    keys = [key for key in tuned_keys(done) if sum(key in r.row.tuned for r in done) >= 2]
    if not keys:
        return Figure((), Axis(), Axis(), ("No finished run with tuned values.",))
    scales: list[Callable[[Run], float | None]] = []
    ends: list[str] = []
    for key in keys:
        values = [r.row.tuned[key] for r in done if key in r.row.tuned]
        axis, place = _axis_of(key, values)
        numbers = [math.log10(place(v)) if axis.log else place(v) for v in values]
        low, high = min(numbers), max(numbers)

        def where(run: Run, key=key, axis=axis, place=place, low=low, high=high) -> float | None:
            if key not in run.row.tuned:
                return None
            value = place(run.row.tuned[key])
            value = math.log10(value) if axis.log else value
            return (value - low) / (high - low) if high > low else 0.5

        scales.append(where)
        texts = [name for _, name in axis.labels] or [f"{min(values):.3g}", f"{max(values):.3g}"]  # type: ignore[type-var]
        ends.append(f"{title(key)}: {texts[0]} (bottom) … {texts[-1]} (top)")
    accuracies = sorted(r.row.accuracy or 0.0 for r in done)
    low, high = accuracies[0], accuracies[-1]
    threshold = accuracies[int(0.75 * (len(accuracies) - 1))]
    best: list[Series] = []
    rest: list[Series] = []
    for run in done:
        accuracy = run.row.accuracy or 0.0
        points = [(float(i), p) for i, where in enumerate(scales) if (p := where(run)) is not None]
        points.append((float(len(keys)), (accuracy - low) / (high - low) if high > low else 0.5))
        top = accuracy >= threshold
        (best if top else rest).append(Series("", points, "line", "strong" if top else "dim"))
    if best:
        best[0] = Series("best quarter", best[0].points, "line", "strong")
    labels = (*((float(i), title(key)) for i, key in enumerate(keys)), (float(len(keys)), "accuracy"))
    ends.append(f"accuracy: {percent(low)} (bottom) … {percent(high)} (top)")
    return Figure((*rest, *best), Axis(labels=labels), Axis(text=lambda v: "", low=0.0, high=1.0), tuple(ends))


def timeline_figure(runs: Sequence[Run], now: float) -> Figure:
    """When each run was active: a horizontal bar for each, coloured by state."""
    begun = [run for run in runs if run.began]
    if not begun:
        return Figure((), Axis(), Axis(), ("No run has begun.",))
    start = min(run.began for run in begun)
    states = ("finished", "running", "pruned", "failed", "stopped", "stale", "paused")
    series: list[Series] = []
    named: set[str] = set()
    for run in begun:
        end = run.record.ended if run.record and run.record.ended else (now if run.row.state == "running" else run.last)
        y = float(run.row.number)
        state = run.row.state
        index = states.index(state) if state in states else 5
        name = state if state not in named else ""
        named.add(state)
        series.append(Series(name, [(run.began - start, y), (max(end, run.began) - start, y)], "line", STYLES[index]))
    return Figure(
        tuple(series), Axis("since the first start", text=duration, low=0.0), Axis("trial number", whole=True)
    )


# --- importance ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Importance:
    """How strongly accuracy depends on one hyperparameter."""

    key: str
    strength: float  # 0 to 1
    n: int  # number of runs
    rising: bool | None  # whether larger values are better; None for values that are not numbers


def tuned_keys(runs: Sequence[Run]) -> list[str]:
    """The hyperparameters that were searched in any of these runs."""
    return sorted({key for run in runs for key in run.row.tuned})


def importances(runs: Sequence[Run]) -> list[Importance]:
    """How strongly accuracy depends on each hyperparameter, one at a time, the strongest first.

    For numbers, the absolute value of Spearman's rank correlation; for other values, the correlation ratio of the
    ranks. Neither sees interactions, and neither implies a cause. Reports have fANOVA importances in addition; these
    here need neither optuna nor scikit-learn, and are fast enough to follow a running study.
    """
    found: list[Importance] = []
    for key in tuned_keys(runs):
        pairs = [(r.row.tuned[key], r.row.accuracy) for r in _finished(runs) if key in r.row.tuned]
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
    room = max(4, min(50, width - name - 22))
    lines = []
    for one in found:
        sign = {True: "↑ more is better", False: "↓ less is better", None: "  by value"}[one.rising]
        bar = "█" * round(one.strength * room)
        lines.append(f"{right(title(one.key), name)} ▕{bar:<{room}}▏{one.strength:.2f}  n={one.n}  {sign}")
    return [*lines, "", "Rank correlation with validation accuracy, one value at a time: no interactions, no cause."]
