"""Pictures of how models err: confusion, the most confident mistakes, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from rich.cells import cell_len

from suite.ranking.mistakes import CalibrationBin, Mistake
from suite.reporting.plots_style import Look, figure, labels, legend


def confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Counts of mistakes by true class and answer; the diagonal is left empty.

    table: (classes, classes) as [label][predicted].
    """
    classes = labels(classes)
    short = max(map(cell_len, classes)) < 4
    made, axes = figure(4.2 if short else 4.7)
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
    turned = 0 if short else 90
    axes.set_xticks(range(n), classes, rotation=turned)
    axes.set_yticks(range(n), classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    return made


def worst(mistakes: Sequence[Mistake], classes: Sequence[str]) -> Figure:
    """The most confident mistakes: each image with its true class, the answer and the probability of the answer."""
    classes = labels(classes)
    columns = 4
    rows = max(1, math.ceil(len(mistakes) / columns))
    made, grid = figure(1.42 * rows, columns, rows)
    long = max(map(cell_len, classes)) > 4
    for axes in grid.flat:
        axes.axis("off")
    for axes, one in zip(grid.flat, mistakes):
        axes.imshow(one.image, cmap="gray", vmin=0, vmax=255)  # the map is for images without colours
        true, answer = classes[one.label], classes[one.predicted]
        between = "\nas " if long else " as "
        axes.set_title(f"{true}{between}{answer}\n{100 * one.probability:.1f}%", fontsize=7.5 if long else 9)
    return made


def reliability(by_bins: Mapping[str, Sequence[CalibrationBin]], by_arm: Mapping[str, Look]) -> Figure:
    """Accuracy against confidence, with the diagonal of perfect calibration; marks grow with the number of images."""
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
    legend(axes)
    return made
