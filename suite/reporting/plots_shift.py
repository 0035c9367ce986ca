"""Pictures of robustness: accuracy by the level of each corruption."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from suite.ranking.shift import Shift
from suite.reporting.plots_style import Look, figure, legend

COLUMNS = 3


def by_level(found: Mapping[str, Shift], by_arm: Mapping[str, Look]) -> Figure:
    """One small picture a corruption, one line an arm, from the pictures as they are (level 0) to the last level."""
    kinds = [(one.name, one.unit) for one in next(iter(found.values())).corruptions]
    rows = math.ceil(len(kinds) / COLUMNS)
    made, grid = figure(0.5 + 1.55 * rows, COLUMNS, rows)
    panels = [panel for line in (grid if rows > 1 else [grid]) for panel in line]
    for panel, (name, unit) in zip(panels, kinds):
        for arm, one in found.items():
            look, kind = by_arm[arm], next(kind for kind in one.corruptions if kind.name == name)
            points = [(0.0, one.clean), *((level.level, one.accuracy(level)) for level in kind.levels)]
            points.sort(key=lambda point: point[0])
            levels = [level for level, _ in points]
            panel.fill_between(
                levels,
                [100 * figures.low for _, figures in points],
                [100 * figures.high for _, figures in points],
                color=look.color,
                alpha=0.15,
                linewidth=0,
            )
            accuracies = [100 * figures.value for _, figures in points]
            style = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 3.5}
            panel.plot(levels, accuracies, label=arm if name == kinds[0][0] else None, **style)
        panel.set_title(name, fontsize=8.5)
        panel.set_xlabel(unit, fontsize=7)
        panel.tick_params(labelsize=7)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.set_ylim(top=101)
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    for panel in panels[::COLUMNS]:
        panel.set_ylabel("accuracy, %", fontsize=7.5)
    legend(panels[0])
    return made
