"""Charts as text: series in, lines of styled pieces out. Pure functions.

Lines are drawn in braille characters (2 x 4 dots a cell), points as glyphs. The plotting libraries for terminals lack
logarithmic axes or glyphs that can be told apart without colour, or take far more than the few milliseconds that
eight curves of a thousand points may take here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from tui.draw.aligned import cut, right, widest
from tui.draw.axes import WHOLE, Axis, Scale, Window, scale, ticks
from tui.model.snapshot import Key

Piece = tuple[str, str]  # text, name of its style; "": the default style
Place = tuple[float, float]  # of a point in the chart, 0 to 1 from the left and from the bottom
GLYPHS = "●◆■▲▼✚○◇□△▽✖◉◈▣✦"
STYLES = tuple(f"series-{i}" for i in range(8))
SHADES = " ░▒▓█"  # of the levels of a raster
BITS = np.array(((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)), dtype=np.uint8)  # of braille, by [y, x]


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) of one quantity. Points that cannot be drawn on an axis are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: Literal["line", "points", "steps", "band"] = "line"  # band: a lower and an upper point at every x
    style: str = STYLES[0]
    glyph: str = GLYPHS[0]
    keys: Sequence[Key] = ()  # the run of each point, where a point is one of a run
    marks: Literal["", "end", "along"] = ""  # where a line has its glyph: it can be told from others without colour


@dataclass(frozen=True)
class Figure:
    """What a chart shows."""

    series: tuple[Series, ...]
    x: Axis
    y: Axis
    notes: tuple[str, ...] = ()  # lines below the chart
    empty: str = "Nothing to draw yet."  # what to do, where there is nothing to draw
    raster: tuple[tuple[int, ...], ...] = ()  # levels of SHADES behind the series, the top row first, over both axes


@dataclass(frozen=True, slots=True)
class Spot:
    """A point that the cursor can be on."""

    x: float
    y: float
    glyph: str = GLYPHS[0]
    key: Key | None = None  # its run


def column_of(place: float, width: int) -> int:
    """The column of a position between 0 and 1: that of its braille dot, so that glyphs, lines and ticks align."""
    return round(place * (2 * width - 1)) // 2


def row_of(place: float, height: int) -> int:
    """The row of a position between 0 (bottom) and 1 (top), likewise."""
    return round((1 - place) * (4 * height - 1)) // 4


class Grid:
    """Cells that hold braille dots or a glyph."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.dots = np.zeros((4 * height, 2 * width), dtype=bool)
        self.glyphs = [[""] * width for _ in range(height)]
        self.styles = np.full((height, width), "", dtype=object)

    def put(self, x: NDArray[np.int64], y: NDArray[np.int64], style: str) -> None:
        """Set dots; the origin is at the top left, 2 x 4 dots a cell. Those outside are left out."""
        inside = (x >= 0) & (x < 2 * self.width) & (y >= 0) & (y < 4 * self.height)
        x, y = x[inside], y[inside]
        self.dots[y, x] = True
        self.styles[y // 4, x // 2] = style

    def glyph(self, column: int, line: int, text: str, style: str) -> None:
        if 0 <= column < self.width and 0 <= line < self.height:
            self.glyphs[line][column] = text
            self.styles[line, column] = style

    def free(self, column: int, line: int) -> bool:
        dots = self.dots[4 * line : 4 * line + 4, 2 * column : 2 * column + 2]
        return not self.glyphs[line][column] and not dots.any()

    def rows(self) -> list[list[Piece]]:
        """The cells as pieces, neighbours of one style joined."""
        lines: list[list[Piece]] = []
        cells = (self.dots.reshape(self.height, 4, self.width, 2) * BITS[:, None, :]).sum(axis=(1, 3))
        for dots, glyphs, styles in zip(cells.tolist(), self.glyphs, self.styles.tolist()):
            pieces: list[Piece] = []
            for bits, glyph, style in zip(dots, glyphs, styles):
                text = glyph or (chr(0x2800 + bits) if bits else " ")
                if pieces and (pieces[-1][1] == style or (text == " " and pieces[-1][1] != "cursor")):
                    pieces[-1] = (pieces[-1][0] + text, pieces[-1][1])
                else:
                    pieces.append((text, style))
            lines.append(pieces)
        return lines


def draw(
    width: int,
    height: int,
    figure: Figure,
    *,
    legend: bool = True,
    window: Window = WHOLE,
    cursor: Spot | None = None,
) -> list[list[Piece]]:
    """Draw a chart as exactly `height` lines of at most `width` cells; a sentence if there is nothing to draw.

    Args:
        window: The part of the x axis that is shown. The y axis covers what lies inside, or all where it has a raster.
        cursor: Where a crosshair is drawn.
    """
    if width < 1 or height < 1:
        return []
    series, x, y = figure.series, figure.x, figure.y
    arrays = [np.asarray(one.points, dtype=float).reshape(-1, 2) for one in series]
    every = np.concatenate(arrays) if arrays else np.empty((0, 2))
    whole = scale(every[:, 0], x)
    xs = whole.part(window) if whole else None
    ys = scale(every[:, 1] if window == WHOLE or figure.raster or xs is None else _within(every, xs), y)
    if whole is None or xs is None or ys is None:
        return _sentence(figure.empty, width, height)
    header = _legend(width, series, 1 + (height >= 16)) if legend and height >= 8 else []
    if y.title and height >= 6:
        header = [[(cut(y.title, width), "dim")], *header]
    footer = 0 if height < 5 else 2 + bool(x.title and height >= 7)
    inner = height - len(header) - footer
    marks = ticks(ys, y, max(2, inner // 2))
    gutter = widest([text for _, text in marks]) + 1 if width >= 24 else 0
    room = width - gutter - (1 if gutter else 0)
    if inner < 1 or room < 2:
        return _padded([], height)
    grid = Grid(room, inner)
    if figure.raster:
        _draw_raster(grid, figure.raster, window)
    for one, points in zip(series, arrays):
        _draw_series(grid, one, xs.places(points[:, 0]), ys.places(points[:, 1]))
    if cursor is not None:
        _draw_cursor(grid, cursor, xs, ys)
    lines = [*header, *_with_y_axis(grid, ys, marks, gutter)]
    if footer:
        lines += _x_axis(room, gutter, xs, x)
        if footer == 3:
            lines.append([(right(cut(x.title, width), width), "dim")])
    return _padded(lines, height)


def _within(points: NDArray[np.float64], xs: Scale) -> NDArray[np.float64]:
    """The y values of the points within the scale of x; of all points if there are none."""
    places = xs.places(points[:, 0])
    with np.errstate(invalid="ignore"):
        inside = points[(places >= 0) & (places <= 1), 1]
    return inside if inside.size else points[:, 1]


def _sentence(text: str, width: int, height: int) -> list[list[Piece]]:
    wrapped = textwrap.wrap(text, max(1, min(width - 2, 72))) if width > 2 else []
    lines: list[list[Piece]] = [
        [(cut(" " * max(0, (width - cell_len(one)) // 2) + one, width), "dim")] for one in wrapped
    ]
    return _padded([*([] for _ in range((height - len(lines)) // 2)), *lines], height)


def _draw_series(grid: Grid, series: Series, px: NDArray[np.float64], py: NDArray[np.float64]) -> None:
    """Draw a series whose points lie at `px` and `py`, 0 to 1 from the left and from the bottom, or NaN."""
    if series.kind == "band":
        pairs = 2 * (len(px) // 2)
        _draw_band(grid, series, px[:pairs:2], py[:pairs:2], py[1::2])
        return
    if series.kind == "points":
        for a, b in zip(px.tolist(), py.tolist()):
            if _inside((a, b)):
                grid.glyph(column_of(a, grid.width), row_of(b, grid.height), series.glyph, series.style)
        return
    if series.kind == "steps":
        px, py = np.repeat(px, 2)[1:], np.repeat(py, 2)[: max(0, 2 * len(py) - 1)]
    _draw_line(grid, px, py, series.style)
    if series.marks:
        _draw_marks(grid, series, px, py)


def _draw_line(grid: Grid, px: NDArray[np.float64], py: NDArray[np.float64], style: str) -> None:
    """Draw the line through these places, with a gap where one is NaN."""
    if len(px) == 1:
        px, py = np.repeat(px, 2), np.repeat(py, 2)
    ends = np.stack((px[:-1], py[:-1], px[1:], py[1:]), axis=1)
    ends = ends[np.isfinite(ends).all(axis=1)]
    starts, stops = ends[:, :2], ends[:, 2:]
    outside = ((np.maximum(starts, stops) < 0) | (np.minimum(starts, stops) > 1)).any(axis=1)
    ends = ends[~outside]
    inside = ((ends >= 0) & (ends <= 1)).all(axis=1)
    clipped = [found for a, b, c, d in ends[~inside].tolist() if (found := _clipped((a, b), (c, d)))]
    ends = np.concatenate((ends[inside], np.array(clipped, dtype=float).reshape(-1, 4)))
    if not len(ends):
        return
    across, down = 2 * grid.width - 1, 4 * grid.height - 1
    x0, y0, x1, y1 = np.rint(ends * (across, down, across, down)).T
    counts = np.maximum(np.maximum(np.abs(x1 - x0), np.abs(y1 - y0)), 1).astype(int) + 1
    first = np.repeat(np.cumsum(counts) - counts, counts)
    share = (np.arange(counts.sum()) - first) / np.repeat(counts - 1, counts)
    x = np.repeat(x0, counts) + share * np.repeat(x1 - x0, counts)
    y = np.repeat(y0, counts) + share * np.repeat(y1 - y0, counts)
    grid.put(np.rint(x).astype(int), (down - np.rint(y)).astype(int), style)


def _inside(place: Place) -> bool:
    return -1e-9 <= place[0] <= 1 + 1e-9 and -1e-9 <= place[1] <= 1 + 1e-9


def _clipped(a: Place, b: Place) -> tuple[float, float, float, float] | None:
    """The part of a line inside the unit square (Liang and Barsky, 1984, https://doi.org/10.1145/357332.357333)."""
    begin, end = 0.0, 1.0
    dx, dy = b[0] - a[0], b[1] - a[1]
    for step, room in ((-dx, a[0]), (dx, 1 - a[0]), (-dy, a[1]), (dy, 1 - a[1])):
        if step == 0:
            if room < 0:
                return None
        elif step < 0:
            begin = max(begin, room / step)
        else:
            end = min(end, room / step)
    if begin > end:
        return None
    return a[0] + begin * dx, a[1] + begin * dy, a[0] + end * dx, a[1] + end * dy


def _draw_marks(grid: Grid, series: Series, px: NDArray[np.float64], py: NDArray[np.float64]) -> None:
    """The glyph of a series at its end, and "along" it at other columns for every glyph, in cells without another."""
    known = np.isfinite(px) & np.isfinite(py)
    if not known.any():
        return
    order = np.argsort(px[known], kind="stable")
    px, py = px[known][order], py[known][order]
    first, last = (column_of(min(1.0, max(0.0, float(end))), grid.width) for end in (px[0], px[-1]))
    gap = max(8, grid.width // 5)
    begin = first + (1 + GLYPHS.find(series.glyph)) * gap // (len(GLYPHS) + 1)
    along = range(begin, last - 2, gap) if series.marks == "along" else ()
    columns = np.arange(grid.width)
    heights = np.interp((columns + 0.5) / grid.width, px, py)
    for wanted in (last, *along):
        for column in range(wanted, max(first, wanted - 3) - 1, -1):
            height = float(heights[column])
            row = row_of(height, grid.height) if 0 <= height <= 1 else -1
            if row >= 0 and not grid.glyphs[row][column]:
                grid.glyph(column, row, series.glyph, series.style)
                break


def _draw_band(
    grid: Grid, series: Series, px: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> None:
    """Every other dot between the lower and the upper line."""
    known = np.isfinite(px) & np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return
    across, down = 2 * grid.width - 1, 4 * grid.height - 1
    x, y = np.meshgrid(np.arange(across + 1), np.arange(down + 1))
    order = np.argsort(px[known], kind="stable")
    at, outside = x[0] / across, {"left": -1.0, "right": -1.0}
    bottom = np.interp(at, px[known][order], low[known][order], **outside)
    top = np.interp(at, px[known][order], high[known][order], **outside)
    height = 1 - y / down
    filled = (height >= bottom) & (height <= top) & ((x + y) % 2 == 0)
    grid.put(x[filled], y[filled], series.style)


def _draw_raster(grid: Grid, raster: Sequence[Sequence[int]], window: Window) -> None:
    for line in range(grid.height):
        row = raster[line * len(raster) // grid.height]
        for column in range(grid.width):
            place = window.low + (column + 0.5) / grid.width * (window.high - window.low)
            level = row[min(len(row) - 1, int(place * len(row)))]
            if level:
                grid.glyph(column, line, SHADES[level], "dim")


def _draw_cursor(grid: Grid, cursor: Spot, xs: Scale, ys: Scale) -> None:
    """A crosshair through all cells that are empty, and the glyph of the point in the style of the cursor."""
    px, py = xs.place(cursor.x), ys.place(cursor.y)
    if px is None or py is None or not -1e-9 <= px <= 1 + 1e-9:
        return
    column, line = column_of(px, grid.width), row_of(py, grid.height)
    for other in range(grid.height):
        if grid.free(column, other):
            grid.glyph(column, other, "┊", "dim")
    if not _inside((px, py)):
        return
    for other in range(grid.width):
        if grid.free(other, line):
            grid.glyph(other, line, "┈", "dim")
    grid.glyph(column, line, cursor.glyph, "cursor")


def _legend(width: int, series: Sequence[Series], most: int) -> list[list[Piece]]:
    """The names of the series on at most `most` lines."""
    lines: list[list[Piece]] = []
    used = width
    for one in series:
        if not one.name:
            continue
        mark = one.glyph if one.kind == "points" else f"{one.glyph if one.marks else ''}━"
        size = cell_len(mark) + 1 + cell_len(one.name)
        if used + 2 + size > width:
            if len(lines) == most or size > width:
                if used + 2 < width or not lines:
                    lines = [*lines[:-1], [*(lines[-1] if lines else []), ("  …" if lines else "…", "dim")]]
                break
            lines.append([])
            used = -2
        lines[-1] += [("  " if used >= 0 else "", ""), (f"{mark} ", one.style), (one.name, "")]
        used += 2 + size
    return lines


def _with_y_axis(grid: Grid, ys: Scale, marks: list[tuple[float, str]], gutter: int) -> list[list[Piece]]:
    if not gutter:
        return grid.rows()
    labels: dict[int, str] = {}
    for value, text in marks:
        place = ys.place(value)
        if place is not None and -1e-9 <= place <= 1 + 1e-9:
            labels[max(0, min(grid.height - 1, row_of(place, grid.height)))] = text
    return [
        [(right(labels.get(i, ""), gutter), "dim"), ("┤" if i in labels else "│", "dim"), *row]
        for i, row in enumerate(grid.rows())
    ]


def _x_axis(room: int, gutter: int, xs: Scale, x: Axis) -> list[list[Piece]]:
    rule = ["─"] * room
    edge = room + (gutter + 1 if gutter else 0)
    line, used = "", 0  # the labels so far, and their cells
    for value, label in ticks(xs, x, max(2, room // 12)):
        place = xs.place(value)
        if place is None or not -1e-9 <= place <= 1 + 1e-9:
            continue
        column = max(0, min(room - 1, column_of(place, room)))
        size = cell_len(label)
        start = max(0, min(column + gutter + (1 if gutter else 0) - size // 2, edge - size))
        if start <= used - (not line) or start + size > edge:  # a blank between two labels
            continue
        rule[column] = "┬"
        line += " " * (start - used) + label
        used = start + size
    corner = " " * gutter + "└" if gutter else ""
    return [[(corner + "".join(rule), "dim")], [(line.rstrip(), "dim")]]


def _padded(lines: list[list[Piece]], height: int) -> list[list[Piece]]:
    return (lines + [[] for _ in range(height - len(lines))])[:height]
