"""Pictures of explanations: what the model saw, the maps over it, and the nearest training images.

Sign and size of a value can be read in black and white: what speaks for the class is darker the more it does, what
speaks against it is hatched. Blue and vermilion are told apart by colour-blind people.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch

from suite.reporting.plots_style import STYLE, labels, literal, numbered
from suite.spec import SIGNED, Attribution, Explanation, Neighbour, Raster

FONT = "DejaVu Sans Mono"  # comes with matplotlib

TITLES = {
    "saliency": "saliency",
    "integrated-gradients": "integrated\ngradients",
    "grad-cam": "Grad-CAM",
    "occlusion": "occlusion",
}

FOR, AGAINST = "#D55E00", "#0072B2"  # vermilion and blue of Okabe and Ito

GROUND = 0.35  # contrast of the picture below a map

FAINT = 0.15  # parts of the largest value below which what speaks against the class is not hatched

PANEL = 1.5  # inches a side

DARKER = LinearSegmentedColormap.from_list("for", [(1, 1, 1, 0), FOR, "#4a1d00"])
BLUE = LinearSegmentedColormap.from_list("against", [(1, 1, 1, 0), AGAINST])


def explained(one: Explanation, classes: Sequence[str]) -> Figure:
    """One picture with its maps and its nearest training images, and a legend."""
    columns = max(1 + len(one.maps), len(one.nearest), 3)
    rows = 1 + bool(one.nearest)
    with matplotlib.rc_context({**STYLE, "font.family": FONT, "axes.grid": False}):
        made = Figure(figsize=(PANEL * columns, 1.0 + 2.0 * rows), layout="constrained")
        grid = GridSpec(rows, columns, figure=made)
        names = labels(classes)
        made.suptitle(_answer(one, names, key=numbered(classes)), fontsize=9, x=0.01, ha="left")
        _maps(made, grid, 0, one)
        for place, neighbour in enumerate(one.nearest):
            _neighbour(made.add_subplot(grid[1, place]), neighbour, names, first=place == 0)
        _legend(made, one)
        return made


def table(explanations: Sequence[Explanation], classes: Sequence[str]) -> Figure:
    """Several pictures below one another, each with its maps in a row, as for the report."""
    names = labels(classes)
    columns = 1 + max(len(one.maps) for one in explanations)
    with matplotlib.rc_context({**STYLE, "font.family": FONT, "axes.grid": False}):
        made = Figure(figsize=(PANEL * columns, 0.9 + 2.15 * len(explanations)), layout="constrained")
        grid = GridSpec(len(explanations), columns, figure=made)
        for row, one in enumerate(explanations):
            _maps(made, grid, row, one, title=_short(one, names), named=row == 0)
        _legend(made, explanations[0])
        return made


def _maps(
    made: Figure, grid: GridSpec, row: int, one: Explanation, title: str = "what the\nmodel saw", *, named: bool = True
) -> None:
    """The picture and its maps in a row of the grid; `named`: with the methods' names."""
    axes = made.add_subplot(grid[row, 0])
    _picture(axes, one.picture)
    axes.set_title(title, fontsize=8)
    for place, attribution in enumerate(one.maps, 1):
        axes = made.add_subplot(grid[row, place])
        _overlaid(axes, one.picture, attribution)
        axes.set_title(TITLES[attribution.method] if named else "", fontsize=8)
        axes.set_xlabel(figures(attribution), fontsize=6.5)


def _answer(one: Explanation, names: Sequence[str], *, key: bool) -> str:
    """What was answered and what is explained, in lines."""
    of_class = "class " if key else ""
    lines = [
        textwrap.shorten(literal(one.image), 70, placeholder=" ..."),
        f"answer {of_class}{names[one.predicted]}, {100 * one.probability:.1f}%",
    ]
    if one.label is not None and one.label != one.predicted:
        lines[1] += f"; it is {of_class}{names[one.label]}"
    if one.target != one.predicted:
        lines[1] += f"; the maps are for {of_class}{names[one.target]}, {100 * one.target_probability:.1f}%"
    return "\n".join(lines)


def _short(one: Explanation, names: Sequence[str]) -> str:
    answer = f"{names[one.predicted]} {100 * one.probability:.1f}%"
    true = f"{names[one.label]} as\n" if one.label is not None and one.label != one.predicted else ""
    return f"{true}{answer}"


def figures(attribution: Attribution) -> str:
    """How a map was made and what its check has found, in lines."""
    lines = []
    if attribution.steps is not None and attribution.remainder is not None:
        lines.append(f"{attribution.steps} steps, off {100 * attribution.remainder:.2g}%")
    if attribution.layer is not None and attribution.cells is not None:
        lines.append(f"{attribution.layer}, {attribution.cells[0]}x{attribution.cells[1]}")
    if attribution.window is not None:
        lines.append(f"window {attribution.window} px")
    if attribution.deletion is not None and attribution.random is not None:
        lines.append(f"del. {attribution.deletion:.2f} rnd. {attribution.random:.2f}")
    if not attribution.largest:
        lines[0] = "nothing speaks for it"
    return "\n".join([*[""] * (2 - len(lines)), *lines][-2:])


def image(raster: Raster) -> np.ndarray:
    """(height, width) or (height, width, 3) uint8."""
    pixels = np.frombuffer(raster.content, np.uint8).reshape(raster.height, raster.width, raster.channels)
    return pixels[..., 0] if raster.channels == 1 else pixels


def values(attribution: Attribution) -> np.ndarray:
    """(height, width) float, -1 to 1."""
    return np.array(attribution.rows, dtype=np.float64) / 127


def _picture(axes: Axes, raster: Raster) -> None:
    axes.imshow(image(raster), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _bare(axes)


def _overlaid(axes: Axes, raster: Raster, attribution: Attribution) -> None:
    """The map over the picture, which is pale and dark on light."""
    grey = image(raster).astype(np.float64)
    grey = grey.mean(2) if grey.ndim == 3 else grey
    grey = 255 - grey if np.median(grey) < 128 else grey  # glyphs are light on dark
    axes.imshow(1 - GROUND * (1 - grey / 255), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    found = values(attribution)
    axes.imshow(np.clip(found, 0, 1), cmap=DARKER, vmin=0, vmax=1, interpolation="nearest")
    against = np.clip(-found, 0, 1)
    if (against > FAINT).any():
        axes.imshow(against, cmap=BLUE, vmin=0, vmax=1, interpolation="nearest")
        large = np.kron(against > FAINT, np.ones((4, 4)))  # hatches follow the borders of pixels
        ticks = (np.arange(len(large)) + 0.5) / 4 - 0.5
        with matplotlib.rc_context({"hatch.color": AGAINST, "hatch.linewidth": 0.6}):
            axes.contourf(ticks, ticks, large, levels=[0.5, 1.5], colors="none", hatches=["////////"])
    _bare(axes)


def _neighbour(axes: Axes, neighbour: Neighbour, names: Sequence[str], *, first: bool) -> None:
    _picture(axes, neighbour.picture)
    title = f"{names[neighbour.label]}\n{neighbour.distance:.3f}"
    axes.set_title(("nearest:\n" if first else "\n") + title, fontsize=8)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#888888", linewidth=0.6)


def _legend(made: Figure, one: Explanation) -> None:
    handles = [
        Patch(facecolor=DARKER(0.5), edgecolor="#888888", label="speaks for the class"),
        Patch(facecolor=DARKER(1.0), edgecolor="#888888", label="most"),
    ]
    if any(attribution.method in SIGNED for attribution in one.maps):
        with matplotlib.rc_context({"hatch.color": AGAINST}):
            handles.append(Patch(facecolor=BLUE(0.4), edgecolor=AGAINST, hatch="//////", label="speaks against it"))
    title = "del.: mean probability while pixels are removed,\nthe most important first; rnd.: in random order"
    made.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, title=title, title_fontsize=6.5
    )
