"""Pictures of the search: importance of hyperparameters, accuracy against one of them, and against all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from suite.ranking.leaderboard import Row
from suite.reporting.plots_style import Look, error, error_axis, error_locator, figure, legend, literal
from suite.spec import Choice, LogFloat, Range


def importances(by_params: Mapping[str, Mapping[str, float]], by_arm: Mapping[str, Look]) -> Figure:
    """Share of each hyperparameter in the variation of accuracy, by arm."""
    names = list(dict.fromkeys(name for found in by_params.values() for name in found))
    made, axes = figure(0.8 + 0.22 * len(names) * (len(by_params) + 1))
    for place, (arm, found) in enumerate(by_params.items()):
        y = [i * (len(by_params) + 1) + place for i in range(len(names))]
        look = by_arm[arm]
        values = [found.get(name, 0.0) for name in names]
        axes.barh(y, values, color="white", edgecolor=look.color, hatch=look.hatch or "|||", label=arm)
    axes.set_yticks([i * (len(by_params) + 1) + (len(by_params) - 1) / 2 for i in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("importance")
    axes.grid(axis="y", visible=False)
    legend(axes)
    return made


def slices(rows: Sequence[Row], name: str, choices: Range, images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Error against one hyperparameter; hollow marks were pruned. For a choice, arms are drawn beside each other."""
    made, axes = figure(3.0)
    values = list(choices.values) if isinstance(choices, Choice) else []
    for place, (arm, look) in enumerate(by_arm.items()):
        own = [r for r in rows if r.arm == arm and name in r.tuned and r.accuracy is not None]
        own = [r for r in own if not values or r.tuned[name] in values]
        offset = (place - (len(by_arm) - 1) / 2) * 0.6 / len(by_arm)
        for state, face in (("finished", look.color), ("pruned", "none")):
            part = [r for r in own if r.state == state]
            axes.plot(
                [values.index(r.tuned[name]) + offset if values else r.tuned[name] for r in part],
                [error(r.accuracy or 0.0, images) for r in part],
                look.marker,
                color=look.color,
                markerfacecolor=face,
                alpha=0.8 if state == "finished" else 0.45,
                markersize=5,
                label=arm if state == "finished" else None,
            )
    if values:
        axes.set_xticks(range(len(values)), [literal(str(v)) for v in values])
        axes.grid(axis="x", visible=False)
    elif isinstance(choices, LogFloat):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
    error_axis(axes)
    legend(axes)
    return made


class _Heights:
    """Where values lie on the axes of parallel coordinates, 0..1."""

    def __init__(self, space: Mapping[str, Range], errors: Sequence[float]) -> None:
        """`errors` are decimal logarithms."""
        self.space, self.highest, self.lowest = space, max(errors), min(errors)

    def of(self, name: str, value: Any) -> float:
        """Of a hyperparameter."""
        choices = self.space[name]
        if isinstance(choices, Choice):
            return (choices.values.index(value) + 0.5) / len(choices.values)
        low, high = choices.low, choices.high
        if isinstance(choices, LogFloat):
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low) if high > low else 0.5

    def of_error(self, value: float) -> float:
        """Of the decimal logarithm of an error; the lowest error is at the top."""
        span = self.highest - self.lowest
        return (self.highest - value) / span if span > 0 else 0.5


def parallel(rows: Sequence[Row], space: Mapping[str, Range], images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Parallel coordinates: every trial is a line through its hyperparameters to its accuracy, the best at the top.

    Finished trials have the line style and marks of their arm, the best of each arm is bold, pruned trials are faint.
    """
    made, axes = figure(3.7)
    shown = [r for r in rows if r.arm in by_arm and r.accuracy is not None and r.state in ("finished", "pruned")]
    shown.sort(key=lambda r: (r.state == "finished", r.accuracy))  # the best are drawn last, on top
    errors = [math.log10(error(r.accuracy or 0.0, images)) for r in shown]
    heights = _Heights(space, errors)
    arms, best = list(by_arm), {r.arm: r for r in shown if r.state == "finished"}
    for r, wrong in zip(shown, errors):
        look, finished, leads = by_arm[r.arm], r.state == "finished", best.get(r.arm) is r
        offset = (arms.index(r.arm) + 0.5) / len(arms) - 0.5  # so that arms with the same choice do not overlap
        points = [
            heights.of(name, r.tuned[name]) + (0.4 * offset / len(c.values) if isinstance(c, Choice) else 0.0)
            for name, c in space.items()
        ]
        axes.plot(
            [*points, heights.of_error(wrong)],
            color=look.color if finished else "#777777",
            linestyle=look.line,
            linewidth=2.4 if leads else 1.0 if finished else 0.7,
            alpha=1.0 if leads else 0.75 if finished else 0.5,
            marker=look.marker if finished else None,
            markersize=6 if leads else 3.5,
            label=r.arm if leads else None,
        )
    _draw_scales(axes, heights)
    legend(axes, arms)
    return made


def _draw_scales(axes: Axes, heights: _Heights) -> None:
    """The vertical scales of parallel coordinates with their ticks and names."""
    space, low, high = heights.space, 10**heights.lowest, 10**heights.highest
    ticks = [[(heights.of(name, v), _short(v)) for v in _ticks(choices)] for name, choices in space.items()]
    of_errors = [e for e in error_locator(low, high).tick_values(low, high) if low <= e <= high]
    ticks.append([(heights.of_error(math.log10(e)), f"{100 - e:g}") for e in of_errors])
    background = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    for x, marks in enumerate(ticks):
        axes.axvline(x, color="black", linewidth=0.8, zorder=1)
        last = x == len(ticks) - 1
        for y, text in marks:
            axes.annotate(
                text,
                (x, y),
                (5 if last else -5, 0),
                textcoords="offset points",
                ha="left" if last else "right",
                va="center",
                fontsize=7.5,
                bbox=background,
                zorder=5,
            )
    names = [name.rpartition(".")[2] for name in space]
    axes.set_xticks(range(len(ticks)), [*names, "accuracy, %"], rotation=30 if len(ticks) > 5 else 0)
    axes.set_xlim(-0.35, len(ticks) - 0.6)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def _ticks(choices: Range) -> list[Any]:
    """A few round values of a range, or all of a choice."""
    if isinstance(choices, Choice):
        return list(choices.values)
    locator = LogLocator(subs=(1, 3)) if isinstance(choices, LogFloat) else MaxNLocator(4, steps=[1, 2, 2.5, 5])
    inside = [float(v) for v in locator.tick_values(choices.low, choices.high) if choices.low <= v <= choices.high]
    return inside or [choices.low]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else literal(str(value))
