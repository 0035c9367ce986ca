"""The picture of a page, out of its figures: test errors with their intervals, readable in black and white."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from suite.gallery.figures import Figures
from suite.ranking.formats import count
from suite.reporting import plots_accuracy
from suite.reporting.plots_style import error, error_axis, figure, labels, legend, looks

COST = "FLOPs of training"


def picture(found: Figures) -> Drawing:
    """By the share of labels where the study compares some, else against FLOPs of training where these differ much,
    else an arm a line."""
    if found.shares:
        return _by_labels(found)
    costs = [found.get(arm, COST).value or 0.0 for arm in found.arms]
    if min(costs) > 0 and max(costs) > 3 * min(costs):
        return _by_cost(found)
    return _by_arm(found)


def _by_labels(found: Figures) -> Drawing:
    """One line a way: the arms whose names differ in what follows the last dash alone."""
    lines: dict[str, list[plots_accuracy.Share]] = {}
    for arm in found.arms:
        test, share = found.get(arm, "test"), found.get(arm, "labels").value or 1.0
        lines.setdefault(arm.rpartition("-")[0], []).append((share, test.value or 0.0, test.low, test.high))
    return plots_accuracy.labels(lines, "test error, %", found.number("test images"))


def _by_cost(found: Figures) -> Drawing:
    made, axes = figure(3.8)
    images, named = found.number("test images"), dict(zip(found.arms, labels(found.arms)))
    drawn: Counter[float] = Counter()
    for arm, look in looks(found.arms).items():
        test = found.get(arm, "test")
        x, y = found.get(arm, COST).value or 0.0, error(test.value or 0.0, images)
        drawn[x] += 1
        x *= 1.05 ** (drawn[x] - 1)  # arms of equal cost stand side by side
        bars = [[0.0], [0.0]]
        if test.low is not None and test.high is not None:
            bars = [[max(0.0, y - error(test.high, images))], [max(0.0, error(test.low, images) - y)]]
        style = {"color": look.color, "markeredgecolor": "black", "capsize": 3, "markersize": 7, "linestyle": "none"}
        axes.errorbar([x], [y], yerr=bars, marker=look.marker, label=named[arm], **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_xlabel("FLOPs of one training")
    error_axis(axes, "test error, %, with 95 % intervals")
    legend(axes)
    return made


def _by_arm(found: Figures) -> Drawing:
    made, axes = figure(1.1 + 0.36 * len(found.arms))
    for y, (arm, look) in enumerate(looks(found.arms).items()):
        test = found.get(arm, "test")
        if test.low is not None and test.high is not None:
            axes.plot([100 * test.low, 100 * test.high], [y, y], color=look.color, linewidth=2)
        axes.plot(100 * (test.value or 0.0), y, look.marker, color=look.color, markeredgecolor="black", markersize=7)
    axes.set_yticks(range(len(found.arms)), labels(found.arms))
    axes.set_ylim(len(found.arms) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %, with 95 % intervals")
    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    return made
