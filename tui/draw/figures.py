"""Figures of the plots screen: one pure function each, from runs to a `Figure`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise

from suite.ranking.leaderboard import COLUMNS, pareto
from tui.draw.cells import GLYPHS as STATE_GLYPHS
from tui.draw.cells import duration, title
from tui.draw.chart import GLYPHS, STYLES, Axis, Figure, Series
from tui.model.board import configuration
from tui.model.snapshot import Key, Run

LINEAR_COSTS = frozenset({"latency"})
FINE = 0.95  # best accuracy from which accuracies are drawn by the logarithm of the error
MOST_LINES = 60  # curves in the figure of intermediate values
NONE_YET = "No finished trial yet. Figures fill while trials finish; 1 shows those at work."


def percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def finished(runs: Sequence[Run]) -> list[Run]:
    """Those that have ended with an accuracy."""
    return [run for run in runs if run.row.state == "finished" and run.row.accuracy is not None]


def tuned_keys(runs: Sequence[Run]) -> list[str]:
    """The hyperparameters that were searched in any of these runs."""
    return sorted({key for run in runs for key in run.row.tuned})


def all_arms(runs: Sequence[Run]) -> list[str]:
    """The names of arms, in the order in which they get glyphs and colours."""
    return sorted({run.row.arm for run in runs})


def look(arm: str, arms: Sequence[str]) -> tuple[str, str]:
    """Style and glyph of an arm. `arms` are all arms there are, so that a filter does not change them."""
    place = arms.index(arm) if arm in arms else 0
    return look_of(place)


def look_of(place: int) -> tuple[str, str]:
    """Style and glyph of the series at this place; no two among the first 128 have both in common."""
    return STYLES[(place + place // len(GLYPHS)) % len(STYLES)], GLYPHS[place % len(GLYPHS)]


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    arms: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.row.number):
        arms.setdefault(run.row.arm, []).append(run)
    return dict(sorted(arms.items()))


def points_by_arm(
    runs: Sequence[Run], arms: Sequence[str], place: Callable[[Run], tuple[float, float]]
) -> list[Series]:
    """A series of points for each arm."""
    arms = arms or all_arms(runs)
    return [
        Series(arm, [place(run) for run in members], "points", *look(arm, arms), keys=[run.key for run in members])
        for arm, members in by_arm(runs).items()
    ]


def accuracy_axis(values: Sequence[float], linear: bool, keep: Sequence[float] = ()) -> tuple[Axis, tuple[str, ...]]:
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


def cost_axis(cost: str) -> Axis:
    unit = "bytes" if cost == "memory" else "seconds" if cost in ("seconds", "wall") else ""
    return Axis(title(cost), log=cost not in LINEAR_COSTS, text=COLUMNS[cost].text, unit=unit)


def pareto_figure(runs: Sequence[Run], cost: str, *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Accuracy against a cost, with the Pareto front; the notes tell the cost of each step along the front.

    The runs are of one validation set; `tui.model.sets` divides others.
    """
    done = [run for run in finished(runs) if getattr(run.row, cost) is not None]
    front = pareto([run.row for run in done], cost)
    series = points_by_arm(done, arms, lambda run: (float(getattr(run.row, cost)), run.row.accuracy or 0.0))
    line = [(float(getattr(row, cost)), row.accuracy or 0.0) for row in front]
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
    y, left_out = accuracy_axis([r.row.accuracy or 0.0 for r in done], linear, [r.accuracy or 0.0 for r in front])
    if line:  # nothing cheaper is known, and no more accuracy for a higher cost
        lowest = min(value for one in series for _, value in one.points) if y.low is None else y.low
        line = [(line[0][0], lowest), *line, (max(x for one in series for x, _ in one.points), line[-1][1])]
    steps = Series("Pareto front", line, "steps", "strong")
    empty = f"No finished trial with a known {title(cost)} yet. f chooses another cost." if finished(runs) else NONE_YET
    return Figure((steps, *series), cost_axis(cost), y, (*left_out, *notes), empty)


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
    series = points_by_arm(known, arms, lambda run: (float(run.row.number), run.row.accuracy or 0.0))
    y, notes = accuracy_axis([run.row.accuracy or 0.0 for run in known], linear)
    steps = Series("best so far", best, "steps", "strong")
    return Figure((steps, *series), Axis("trial number", whole=True), y, notes, NONE_YET)


def edf_figure(runs: Sequence[Run], *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """For each arm the share of its finished trials that reach at most an accuracy (empirical distribution)."""
    done = finished(runs)
    arms = arms or all_arms(runs)
    x, notes = accuracy_axis([run.row.accuracy or 0.0 for run in done], linear)
    series: list[Series] = []
    for arm, members in by_arm(done).items():
        ordered = sorted(members, key=lambda run: run.row.accuracy or 0.0)
        points = [(run.row.accuracy or 0.0, (i + 1) / len(ordered)) for i, run in enumerate(ordered)]
        keys = [run.key for run in ordered]
        series.append(Series(arm, points, "steps", *look(arm, arms), keys=keys, marks="along"))
    y = Axis("share of finished trials", text=percent, low=0.0, high=1.0)
    return Figure(
        tuple(series),
        x,
        y,
        (*notes, "The share of an arm's finished trials up to an accuracy: the further right, the better."),
        NONE_YET,
    )


def intermediate_figure(
    runs: Sequence[Run], *, arms: Sequence[str] = (), linear: bool = False, grouped: bool = False
) -> Figure:
    """Validation accuracy by epoch of the best MOST_LINES runs; `grouped`: seeds as their mean in a band."""
    shown = sorted((r for r in runs if r.row.curve), key=lambda r: -(r.row.accuracy or 0.0))
    arms = arms or all_arms(runs)
    groups: dict[object, list[Run]] = {}
    for run in shown:
        groups.setdefault(configuration(run) if grouped else run.key, []).append(run)
    named: set[str] = set()
    series: list[Series] = []
    for members in reversed(list(groups.values())[:MOST_LINES]):
        first = members[0]
        name = first.row.arm if first.row.arm not in named else ""
        named.add(first.row.arm)
        series += _curve(members, name, look(first.row.arm, arms))
    notes = (f"The {MOST_LINES} best of {len(groups)} curves.",) if len(groups) > MOST_LINES else ()
    if any(one.kind == "band" for one in series):
        notes = (*notes, "Line: mean over seeds; band: lowest to highest seed.")
    y, below = accuracy_axis([value for one in series for _, value in one.points], linear)
    empty = "No trial has been evaluated yet. A curve begins after the first evaluation."
    return Figure(tuple(series), Axis("epoch", whole=True), y, (*notes, *below), empty)


def _curve(members: Sequence[Run], name: str, style: tuple[str, str]) -> list[Series]:
    """The curve of a run, or the mean of several in a band from their lowest to their highest."""
    band: list[tuple[float, float]] = []
    if len(members) == 1:
        points = epochs(members[0])
    else:
        by_epoch: dict[float, list[float]] = {}
        for run in members:
            for epoch, accuracy in epochs(run):
                by_epoch.setdefault(epoch, []).append(accuracy)
        common = {epoch: values for epoch, values in sorted(by_epoch.items()) if len(values) > 1} or by_epoch
        points = [(epoch, statistics.fmean(values)) for epoch, values in common.items()]
        band = [(epoch, end) for epoch, values in common.items() for end in (min(values), max(values))]
    points = [(float(epoch), accuracy) for epoch, accuracy in points]
    keys = [members[0].key] * len(points)
    line = Series(
        name, points, "line" if len(points) > 1 else "points", *style, keys=keys, marks="along" if name else "end"
    )
    return [Series("", band, "band", *style), line] if band else [line]


def epochs(run: Run) -> list[tuple[float, float]]:
    """(epoch, accuracy) pairs."""
    return list(run.record.curve) if run.record is not None else list(zip(run.row.epochs, run.row.curve))


def timeline_figure(runs: Sequence[Run], now: float) -> Figure:
    """When each run was active: a horizontal bar for each, with the colour and the glyph of its state."""
    begun = [run for run in runs if run.began]
    start = min((run.began for run in begun), default=0.0)
    states = ("finished", "running", "pruned", "failed", "stopped", "stale", "paused")
    bars: list[Series] = []
    ends: dict[str, list[tuple[tuple[float, float], Key]]] = {}
    for run in begun:
        end = run.record.ended if run.record and run.record.ended else (now if run.row.state == "running" else run.last)
        y, state = float(run.row.number), run.row.state
        last = (max(end, run.began) - start, y)
        bars.append(Series("", [(run.began - start, y), last], "line", _state_style(state, states)))
        ends.setdefault(state, []).append((last, run.key))
    points = [
        Series(
            state,
            [place for place, _ in found],
            "points",
            _state_style(state, states),
            STATE_GLYPHS.get(state, "?"),
            [key for _, key in found],
        )
        for state, found in sorted(ends.items())
    ]
    x = Axis("since the first start", text=duration, low=0.0, unit="seconds")
    empty = "No trial has begun. n on the board launches a sweep."
    return Figure((*bars, *points), x, Axis("trial number", whole=True), empty=empty)


def _state_style(state: str, states: Sequence[str]) -> str:
    return STYLES[states.index(state) if state in states else 5]
