"""Pictures of accuracies: fronts against cost, curves by epoch, by training labels, by trial, and on test.

Each function returns a figure; `images` is the number of validation images, `by_arm` how each arm is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, ScalarFormatter

from suite.ranking.final import Finalist
from suite.ranking.leaderboard import Row, column
from suite.ranking.pareto import Front
from suite.ranking.statistics import sample_of_shares, wilson
from suite.reporting.plots_style import Look, error, error_axis, figure, legend, looks

Share = tuple[float, float, float | None, float | None]  # of the training labels, accuracy, its interval


def front(rows: Sequence[Row], found: Front, title: str, images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Finished trials by cost and error, with the front as a staircase and its knee ringed."""
    made, axes = figure(3.5)
    cost = found.cost
    shown = [r for r in rows if r.state == "finished" and r.accuracy is not None and getattr(r, cost) is not None]
    smallest = min((float(getattr(r, cost)) for r in shown if getattr(r, cost) > 0), default=1.0)
    for arm, look in by_arm.items():
        own = [r for r in shown if r.arm == arm]
        x = [max(getattr(r, cost), smallest) for r in own]
        y = [error(r.accuracy or 0.0, images) for r in own]
        axes.plot(x, y, look.marker, color=look.color, alpha=0.8, markersize=7, label=arm, markeredgecolor="white")
    steps = [(max(p.cost, smallest), error(p.accuracy, images)) for p in found.points]
    axes.step(*zip(*steps), where="post", color="#444444", linewidth=1, zorder=1)
    for point, place in zip(found.points, steps):
        if point.trial == found.knee:
            axes.plot(*place, "o", markersize=13, markerfacecolor="none", color="black")
            axes.annotate("knee", place, textcoords="offset points", xytext=(9, 7))
    axes.set_xscale("log")
    values = [max(getattr(r, cost), smallest) for r in shown]
    if max(values) < 100 * min(values):  # less than two decades: ticks between the powers of ten
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: column(cost).text(v)))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(title)
    error_axis(axes)
    legend(axes)
    return made


def curves(
    groups: Mapping[str, Sequence[Sequence[tuple[float, float]]]], images: int, by_arm: Mapping[str, Look]
) -> Figure:
    """Error by epoch, one line an arm. `groups` holds the curves of each arm as (epoch, accuracy).

    Several curves of an arm are averaged, with a 95 % t interval as a band; a single one has the Wilson interval for
    its images.
    """
    made, axes = figure()
    for arm, found in groups.items():
        look = by_arm[arm]
        epochs = sorted(set.intersection(*({epoch for epoch, _ in curve} for curve in found)))
        middle, low, high = [], [], []
        for epoch in epochs:
            values = [dict(curve)[epoch] for curve in found]
            mean = sample_of_shares(values)
            if mean.low is None or mean.high is None:
                bounds = wilson(mean.mean, images)
            else:
                bounds = (mean.low, mean.high)
            middle.append(error(mean.mean, images))
            low.append(error(bounds[0], images))
            high.append(error(bounds[1], images))
        axes.fill_between(epochs, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(epochs, middle, color=look.color, linestyle=look.line, marker=look.marker, markersize=4.5, label=arm)
    middles = [
        y for line in axes.lines for y in line.get_ydata()
    ]  # the axis follows the lines: the band of two seeds may be very wide
    if middles:
        axes.set_ylim(min(middles) / 1.6, min(100.0, max(middles) * 1.6))
    axes.set_xlabel("epoch")
    error_axis(axes)
    legend(axes)
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
    error_axis(axes, axis)
    legend(axes)
    return made


def history(rows: Sequence[Row], images: int, by_arm: Mapping[str, Look]) -> Figure:
    """Errors of the search by the number of the trial, and the best of each arm up to it; hollow marks were pruned."""
    made, axes = figure()
    for arm, look in by_arm.items():
        own = sorted((r for r in rows if r.arm == arm and r.accuracy is not None), key=lambda r: r.number)
        done = [r for r in own if r.state == "finished"]
        pruned = [r for r in own if r.state == "pruned"]
        kinds = ((done, look.color, 0.8, 5), (pruned, "none", 0.5, 4))
        for trials, face, alpha, size in kinds:
            axes.plot(
                [r.number for r in trials],
                [error(r.accuracy or 0, images) for r in trials],
                color=look.color,
                marker=look.marker,
                linestyle="none",
                markerfacecolor=face,
                alpha=alpha,
                markersize=size,
            )
        best = list(accumulate((error(r.accuracy or 0, images) for r in done), min))
        axes.step([r.number for r in done], best, where="post", color=look.color, linestyle=look.line, label=arm)
    axes.set_xlabel("trial (hollow: pruned)")
    error_axis(axes)
    legend(axes)
    return made


def finals(rows: Sequence[Finalist], by_arm: Mapping[str, Look]) -> Figure:
    """Test accuracy of every finalist: a small mark for each seed, the mean with its 95 % interval over seeds, and a
    cross for the validation accuracy in the search."""
    made, axes = figure(1.1 + 0.42 * len(rows))
    for y, row in enumerate(rows):
        look, test = by_arm[row.arm], row.test
        axes.plot(
            [100 * a for a in row.accuracies], [y + 0.18] * len(row.accuracies), "|", color="#555555", markersize=6
        )
        if test.low is not None and test.high is not None:
            bounds = [100 * max(0.0, test.low), 100 * min(1.0, test.high)]
            axes.plot(bounds, [y, y], color=look.color, linewidth=2)
        axes.plot(100 * test.mean, y, look.marker, color=look.color, markersize=7)
        axes.plot(100 * row.search_accuracy, y, "x", color="#777777", markersize=6)
    marks = ["*" if row.represents_arm else "" for row in rows]
    axes.set_yticks(range(len(rows)), [f"{m}{r.arm} {r.trial[:4]}" for m, r in zip(marks, rows)])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %   (| seeds, x in the search)")
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    return made
