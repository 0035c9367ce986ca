"""The report's pictures. Every series has its own marker and line style, so they read in black and white as well.

Each function returns a matplotlib figure WIDTH inches wide, for one column of a phone; nothing is shown or written.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from suite.ranking.leaderboard import Row, column
from suite.ranking.statistics import sample, wilson
from suite.spec import Bin, Choice, LogFloat, Range

WIDTH = 4.6  # inches

DPI = 200  # of PNGs: some 900 pixels wide, as a README shows them

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito, 2008

MARKERS = "os^Dv<>P*X"

LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")

STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "mnist-suite",  # the same report twice is the same file twice
}


@dataclass(frozen=True)
class Look:
    """How one arm is drawn, everywhere."""

    color: str
    marker: str
    line: Any
    hatch: str


def looks(arms: Sequence[str]) -> dict[str, Look]:
    return {
        arm: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)], HATCHES[i % len(HATCHES)])
        for i, arm in enumerate(arms)
    }


def figure(height: float = 3.2, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(WIDTH, height), layout="constrained")
        return made, made.subplots(rows, columns, squeeze=rows == columns == 1)


def as_svg(made: Figure) -> bytes:
    with matplotlib.rc_context(STYLE):
        file = io.BytesIO()
        made.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def as_png(made: Figure) -> bytes:
    with matplotlib.rc_context(STYLE):
        file = io.BytesIO()
        made.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


# --- pieces -------------------------------------------------------------------------------------------------------


def _errors(axes: Axes, label: str = "validation error, %") -> None:
    """A logarithmic axis of error rates with plain numbers on it."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(_error_locator(*axes.get_ylim()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def _error_locator(low: float, high: float) -> Locator:
    """Where marks stand: in less than a decade, powers of ten and their multiples would be one or two."""
    return MaxNLocator(5) if high < 8 * low else LogLocator(subs=(1, 2, 5))


def error(accuracy: float, images: int) -> float:
    """Percent wrong; no mistake at all is drawn as half of one, since zero has no place on a logarithm."""
    return 100 * max(1 - accuracy, 0.5 / max(images, 1))


def _legend(axes: Axes, order: Sequence[str] | None = None) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if order is not None:
        labels, handles = zip(*sorted(zip(labels, handles), key=lambda pair: order.index(pair[0])))
    assert isinstance(axes.figure, Figure)
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)


Share = tuple[float, float, float | None, float | None]  # part of the labels, accuracy, and its interval


# --- pictures --------------------------------------------------------------------------------------------------------


def front(rows: Sequence[Row], found: Mapping[str, Any], title: str, images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Finished trials by cost and error, with the front as a staircase and its knee ringed."""
    made, axes = figure(3.5)
    cost = found["cost"]
    shown = [r for r in rows if r.state == "finished" and r.accuracy is not None and getattr(r, cost) is not None]
    least = min((float(getattr(r, cost)) for r in shown if getattr(r, cost) > 0), default=1.0)
    for arm, look in by_arm.items():
        own = [r for r in shown if r.arm == arm]
        x = [max(getattr(r, cost), least) for r in own]
        y = [error(r.accuracy or 0.0, images) for r in own]
        axes.plot(x, y, look.marker, color=look.color, alpha=0.8, markersize=7, label=arm, markeredgecolor="white")
    steps = [(max(p["cost"], least), error(p["accuracy"], images)) for p in found["points"]]
    axes.step(*zip(*steps), where="post", color="#444444", linewidth=1, zorder=1)
    for point, place in zip(found["points"], steps):
        if point["trial"] == found["knee"]:
            axes.plot(*place, "o", markersize=13, markerfacecolor="none", color="black")
            axes.annotate("knee", place, textcoords="offset points", xytext=(9, 7))
    axes.set_xscale("log")
    values = [max(getattr(r, cost), least) for r in shown]
    if max(values) < 100 * min(values):  # two decades: name more than the powers of ten
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: column(cost).text(v)))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(title)
    _errors(axes)
    _legend(axes)
    return made


def curves(
    groups: Mapping[str, Sequence[Sequence[tuple[float, float]]]], images: int, by_arm: Mapping[str, Look]
) -> Figure:
    """Error by epoch, one line an arm. Several curves of an arm are averaged with a 95 % band over them (t);
    a single one has the Wilson band of its images."""
    made, axes = figure()
    for arm, found in groups.items():
        look = by_arm[arm]
        epochs = sorted(set.intersection(*({epoch for epoch, _ in curve} for curve in found)))
        middle, low, high = [], [], []
        for epoch in epochs:
            values = [dict(curve)[epoch] for curve in found]
            mean = sample(values)
            a, b = (
                (mean.low, mean.high) if mean.low is not None and mean.high is not None else wilson(mean.mean, images)
            )
            middle.append(error(mean.mean, images))
            low.append(error(a, images))
            high.append(error(b, images))
        axes.fill_between(epochs, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(epochs, middle, color=look.color, linestyle=look.line, marker=look.marker, markersize=4.5, label=arm)
    middles = [y for line in axes.lines for y in line.get_ydata()]  # a band of two seeds may be wider than it tells
    if middles:
        axes.set_ylim(min(middles) / 1.6, min(100.0, max(middles) * 1.6))
    axes.set_xlabel("epoch")
    _errors(axes)
    _legend(axes)
    return made


def labels(lines: Mapping[str, Sequence[Share]], axis: str, images: int) -> Figure:
    """Error by the share of training labels used, with intervals as bars where they are known."""
    made, axes = figure()
    for (name, points), look in zip(lines.items(), looks(list(lines)).values()):
        x = [100 * share for share, *_ in points]
        middle = [error(accuracy, images) for _, accuracy, *_ in points]
        below = [m - error(high, images) if high is not None else 0.0 for m, (*_, high) in zip(middle, points)]
        above = [error(low, images) - m if low is not None else 0.0 for m, (*_, low, _) in zip(middle, points)]
        bars = [[max(0.0, gap) for gap in side] for side in (below, above)]
        style = {"color": look.color, "marker": look.marker, "linestyle": look.line, "capsize": 2}
        axes.errorbar(x, middle, yerr=bars, label=name, **style)
    axes.set_xscale("log")
    axes.set_xticks(sorted({100 * share for points in lines.values() for share, *_ in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training labels used, %")
    _errors(axes, axis)
    _legend(axes)
    return made


def course(rows: Sequence[Row], images: int, by_arm: Mapping[str, Look]) -> Figure:
    """The search as it went: every finished trial by number, and the best of each arm so far."""
    made, axes = figure()
    for arm, look in by_arm.items():
        own = sorted((r for r in rows if r.arm == arm and r.accuracy is not None), key=lambda r: r.number)
        done = [r for r in own if r.state == "finished"]
        gone = [r for r in own if r.state == "pruned"]
        style = {"color": look.color, "marker": look.marker, "linestyle": "none"}
        axes.plot(
            [r.number for r in done], [error(r.accuracy or 0, images) for r in done], alpha=0.8, markersize=5, **style
        )
        axes.plot(
            [r.number for r in gone],
            [error(r.accuracy or 0, images) for r in gone],
            markerfacecolor="none",
            alpha=0.5,
            markersize=4,
            **style,
        )
        best, numbers = [], [r.number for r in done]
        for r in done:
            best.append(min([*best[-1:], error(r.accuracy or 0, images)]))
        axes.step(numbers, best, where="post", color=look.color, linestyle=look.line, label=arm)
    axes.set_xlabel("trial (hollow: pruned)")
    _errors(axes)
    _legend(axes)
    return made


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
    _legend(axes)
    return made


def slices(rows: Sequence[Row], name: str, choices: Range, images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Error against one hyperparameter; hollow marks were pruned. Where it has few values the arms stand abreast."""
    made, axes = figure(3.0)
    values = list(choices.values) if isinstance(choices, Choice) else []
    for place, (arm, look) in enumerate(by_arm.items()):
        own = [r for r in rows if r.arm == arm and name in r.tuned and r.accuracy is not None]
        own = [r for r in own if not values or r.tuned[name] in values]
        aside = (place - (len(by_arm) - 1) / 2) * 0.6 / len(by_arm)
        for state, face in (("finished", look.color), ("pruned", "none")):
            part = [r for r in own if r.state == state]
            axes.plot(
                [values.index(r.tuned[name]) + aside if values else r.tuned[name] for r in part],
                [error(r.accuracy or 0.0, images) for r in part],
                look.marker,
                color=look.color,
                markerfacecolor=face,
                alpha=0.8 if state == "finished" else 0.45,
                markersize=5,
                label=arm if state == "finished" else None,
            )
    if values:
        axes.set_xticks(range(len(values)), [str(v) for v in values])
        axes.grid(axis="x", visible=False)
    elif isinstance(choices, LogFloat):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
    _errors(axes)
    _legend(axes)
    return made


def parallel(rows: Sequence[Row], space: Mapping[str, Range], images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Every trial as a line through its hyperparameters to its accuracy, the best at the top.

    Finished trials have their arm's dashes and marks, the best of each arm is bold, pruned trials are faint.
    """
    made, axes = figure(3.7)
    shown = [r for r in rows if r.arm in by_arm and r.accuracy is not None and r.state in ("finished", "pruned")]
    shown.sort(key=lambda r: (r.state == "finished", r.accuracy))  # the best are drawn last, on top
    errors = [math.log10(error(r.accuracy or 0.0, images)) for r in shown]
    most, least = max(errors), min(errors)
    arms, best = list(by_arm), {r.arm: r for r in shown if r.state == "finished"}

    def height(name: str, value: Any) -> float:
        choices = space[name]
        if isinstance(choices, Choice):
            return (choices.values.index(value) + 0.5) / len(choices.values)
        low, high = choices.low, choices.high
        if isinstance(choices, LogFloat):
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return (value - low) / (high - low) if high > low else 0.5

    def accuracy_height(value: float) -> float:
        return (most - value) / (most - least) if most > least else 0.5

    for r, wrong in zip(shown, errors):
        look, finished, leads = by_arm[r.arm], r.state == "finished", best.get(r.arm) is r
        aside = (arms.index(r.arm) + 0.5) / len(arms) - 0.5  # so that arms that chose the same do not hide each other
        heights = [
            height(name, r.tuned[name]) + (0.4 * aside / len(c.values) if isinstance(c, Choice) else 0.0)
            for name, c in space.items()
        ]
        axes.plot(
            [*heights, accuracy_height(wrong)],
            color=look.color if finished else "#777777",
            linestyle=look.line,
            linewidth=2.4 if leads else 1.0 if finished else 0.7,
            alpha=1.0 if leads else 0.75 if finished else 0.5,
            marker=look.marker if finished else None,
            markersize=6 if leads else 3.5,
            label=r.arm if leads else None,
        )
    ticks = [[(height(name, v), _short(v)) for v in _ticks(choices)] for name, choices in space.items()]
    of_errors = _error_locator(10**least, 10**most).tick_values(10**least, 10**most)
    ticks.append([(accuracy_height(math.log10(e)), f"{100 - e:g}") for e in of_errors if 10**least <= e <= 10**most])
    behind = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
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
                bbox=behind,
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
    _legend(axes, arms)
    return made


def _ticks(choices: Range) -> list[Any]:
    """A few round values of a range, or all of a choice."""
    if isinstance(choices, Choice):
        return list(choices.values)
    locator = LogLocator(subs=(1, 3)) if isinstance(choices, LogFloat) else MaxNLocator(4, steps=[1, 2, 2.5, 5])
    inside = [float(v) for v in locator.tick_values(choices.low, choices.high) if choices.low <= v <= choices.high]
    return inside or [choices.low]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(names: Sequence[str]) -> list[str]:
    """Names as they are: between two dollars matplotlib would look for a formula."""
    return [name.replace("$", r"\$") for name in names]


def confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts of mistakes by true class and answer; the diagonal, what was right, is left empty."""
    classes = _plain(classes)
    made, axes = figure(4.2 if max(map(len, classes)) < 4 else 4.7)
    n = len(classes)
    wrong = [[0 if i == j else table[i][j] for j in range(n)] for i in range(n)]
    most = max(1, *(max(row) for row in wrong))
    axes.imshow(wrong, cmap="Greys", vmin=0, vmax=most * 1.25)
    if n <= 20:
        for i in range(n):
            for j in range(n):
                if wrong[i][j]:
                    color = "white" if wrong[i][j] > 0.6 * most else "black"
                    axes.text(j, i, str(wrong[i][j]), ha="center", va="center", color=color, fontsize=8.5)
                elif i == j:
                    axes.text(j, i, "·", ha="center", va="center", color="#888888")
    turned = 0 if max(map(len, classes)) < 4 else 90
    axes.set_xticks(range(n), classes, rotation=turned)
    axes.set_yticks(range(n), classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    return made


def worst(mistakes: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """The most confident mistakes as pictures: true class, answer and how sure it was of it."""
    classes = _plain(classes)
    columns = 4
    rows = max(1, math.ceil(len(mistakes) / columns))
    made, grid = figure(1.42 * rows, columns, rows)
    long = max(map(len, classes)) > 4
    for axes in grid.flat:
        axes.axis("off")
    for axes, one in zip(grid.flat, mistakes):
        axes.imshow(one["pixels"], cmap="Greys", vmin=0, vmax=255)
        true, said = classes[one["label"]], classes[one["predicted"]]
        between = "\nas " if long else " as "
        axes.set_title(f"{true}{between}{said}\n{100 * one['probability']:.1f}%", fontsize=7.5 if long else 9)
    return made


def reliability(by_bins: Mapping[str, Sequence[Bin]], by_arm: Mapping[str, Look]) -> Figure:
    """Accuracy against confidence; marks grow with the number of images."""
    made, axes = figure(3.6)
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, zorder=1)
    for arm, bins in by_bins.items():
        look, total = by_arm[arm], sum(b.count for b in bins)
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=look.color, linestyle=look.line, linewidth=1, label=arm)
        sizes = [20 + 80 * math.sqrt(b.count / total) for b in bins]
        axes.scatter(x, y, s=sizes, color=look.color, marker=look.marker, alpha=0.8, edgecolor="white", linewidth=0.5)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.03)
    axes.set_ylim(0, 1.03)
    _legend(axes)
    return made


def finals(rows: Sequence[Mapping[str, Any]], by_arm: Mapping[str, Look]) -> Figure:
    """Test accuracy of every finalist: seeds as small marks, the mean with its 95 % interval, and as a cross what
    the search had said on validation."""
    made, axes = figure(1.1 + 0.42 * len(rows))
    for y, row in enumerate(rows):
        look, test = by_arm[row["arm"]], row["test"]
        axes.plot([100 * a for a in row["accuracies"]], [y + 0.18] * test["n"], "|", color="#555555", markersize=6)
        if test["low"] is not None:
            bounds = [100 * max(0.0, test["low"]), 100 * min(1.0, test["high"])]
            axes.plot(bounds, [y, y], color=look.color, linewidth=2)
        axes.plot(100 * test["mean"], y, look.marker, color=look.color, markersize=7)
        axes.plot(100 * row["search_accuracy"], y, "x", color="#777777", markersize=6)
    marks = ["*" if row["represents_arm"] else "" for row in rows]
    axes.set_yticks(range(len(rows)), [f"{m}{r['arm']} {r['trial'][:4]}" for m, r in zip(marks, rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %   (| seeds, x in the search)")
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    return made
