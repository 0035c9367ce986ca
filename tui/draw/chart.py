"""Charts as text: series in, lines of styled pieces out. Pure functions.

Lines are drawn in braille characters (2 x 4 dots a cell), points as glyphs. The plotting libraries for terminals lack
logarithmic axes or glyphs that can be told apart without colour, or take far more than the few milliseconds that
eight curves of a thousand points may take here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from rich.cells import cell_len

from tui.draw.aligned import cut, right, widest
from tui.draw.axes import WHOLE, Axis, Scale, Window, scale, ticks
from tui.model.snapshot import Key

Piece = tuple[str, str]  # text, name of its style; "": the default style
Place = tuple[float, float]  # of a point in the chart, 0 to 1 from the left and from the bottom
GLYPHS = "●◆■▲▼✚○◇"
STYLES = tuple(f"series-{i}" for i in range(8))
SHADES = " ░▒▓█"  # of the levels of a raster
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille bits by [x][y]


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


def thin(points: Sequence[tuple[float, float]], width: int) -> Sequence[tuple[float, float]]:
    """Reduce a line to the first, lowest, highest and last point of each of `width` sections; it looks the same."""
    if len(points) <= 4 * width or width < 1:
        return points
    kept: list[tuple[float, float]] = []
    size = len(points) / width
    for i in range(width):
        part = points[int(i * size) : int((i + 1) * size)]
        low = min(range(len(part)), key=lambda j: part[j][1])
        high = max(range(len(part)), key=lambda j: part[j][1])
        kept += [part[j] for j in sorted({0, low, high, len(part) - 1})]
    return kept


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
        self.dots = [[0] * width for _ in range(height)]
        self.glyphs = [[""] * width for _ in range(height)]
        self.styles = [[""] * width for _ in range(height)]

    def dot(self, x: int, y: int, style: str) -> None:
        """Set one dot; the origin is at the top left, 2 x 4 dots a cell."""
        column, line = x // 2, y // 4
        if 0 <= column < self.width and 0 <= line < self.height:
            self.dots[line][column] |= DOTS[x % 2][y % 4]
            self.styles[line][column] = style

    def glyph(self, column: int, line: int, text: str, style: str) -> None:
        if 0 <= column < self.width and 0 <= line < self.height:
            self.glyphs[line][column] = text
            self.styles[line][column] = style

    def free(self, column: int, line: int) -> bool:
        return not self.dots[line][column] and not self.glyphs[line][column]

    def line(self, x0: int, y0: int, x1: int, y1: int, style: str) -> None:
        """Draw a line of dots (Bresenham, 1965, https://doi.org/10.1147/sj.41.0025)."""
        dx, dy = abs(x1 - x0), -abs(y1 - y0)
        sx, sy = (1 if x0 < x1 else -1), (1 if y0 < y1 else -1)
        error = dx + dy
        while True:
            self.dot(x0, y0, style)
            if x0 == x1 and y0 == y1:
                return
            twice = 2 * error
            if twice >= dy:
                error += dy
                x0 += sx
            if twice <= dx:
                error += dx
                y0 += sy

    def rows(self) -> list[list[Piece]]:
        """The cells as pieces, neighbours of one style joined."""
        lines: list[list[Piece]] = []
        for dots, glyphs, styles in zip(self.dots, self.glyphs, self.styles):
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
        window: The part of the x axis that is shown. The y axis then covers what lies inside.
        cursor: Where a crosshair is drawn.
    """
    if width < 1 or height < 1:
        return []
    series, x, y = figure.series, figure.x, figure.y
    whole = scale([p[0] for s in series for p in s.points], x)
    xs = whole.part(window) if whole else None
    ys = scale(_heights(series, None if window == WHOLE else xs), y)
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
    for one in series:
        _draw_series(grid, one, xs, ys)
    if cursor is not None:
        _draw_cursor(grid, cursor, xs, ys)
    lines = [*header, *_with_y_axis(grid, ys, marks, gutter)]
    if footer:
        lines += _x_axis(room, gutter, xs, x)
        if footer == 3:
            lines.append([(right(cut(x.title, width), width), "dim")])
    return _padded(lines, height)


def _heights(series: Sequence[Series], xs: Scale | None) -> list[float]:
    """The y values that the axis must cover: those within the scale of x."""
    if xs is None:
        return [p[1] for s in series for p in s.points]
    inside = [p[1] for s in series for p in s.points if (place := xs.place(p[0])) is not None and 0 <= place <= 1]
    return inside or [p[1] for s in series for p in s.points]


def _sentence(text: str, width: int, height: int) -> list[list[Piece]]:
    wrapped = textwrap.wrap(text, max(1, min(width - 2, 72))) if width > 2 else []
    lines: list[list[Piece]] = [
        [(cut(" " * max(0, (width - cell_len(one)) // 2) + one, width), "dim")] for one in wrapped
    ]
    return _padded([*([] for _ in range((height - len(lines)) // 2)), *lines], height)


def _draw_series(grid: Grid, series: Series, xs: Scale, ys: Scale) -> None:
    if series.kind == "band":
        _draw_band(grid, series, xs, ys)
        return
    points = thin(series.points, grid.width) if series.kind == "line" else series.points
    places = [None if (a := xs.place(x)) is None or (b := ys.place(y)) is None else (a, b) for x, y in points]
    if series.kind == "points":
        for place in places:
            if place is not None and _inside(place):
                grid.glyph(column_of(place[0], grid.width), row_of(place[1], grid.height), series.glyph, series.style)
        return
    before: Place | None = None
    for place in places:
        if place is None:
            before = None
            continue
        if before is None:
            _segment(grid, place, place, series.style)
        elif series.kind == "steps":
            corner = (place[0], before[1])
            _segment(grid, before, corner, series.style)
            _segment(grid, corner, place, series.style)
        else:
            _segment(grid, before, place, series.style)
        before = place
    if series.marks:
        _draw_marks(grid, series, [place for place in places if place is not None and _inside(place)])


def _inside(place: Place) -> bool:
    return -1e-9 <= place[0] <= 1 + 1e-9 and -1e-9 <= place[1] <= 1 + 1e-9


def _segment(grid: Grid, a: Place, b: Place, style: str) -> None:
    """Draw what lies inside of the line from `a` to `b`."""
    if not (_inside(a) and _inside(b)):
        clipped = _clipped(a, b)
        if clipped is None:
            return
        a, b = clipped
    across, down = 2 * grid.width - 1, 4 * grid.height - 1
    grid.line(round(a[0] * across), round((1 - a[1]) * down), round(b[0] * across), round((1 - b[1]) * down), style)


def _clipped(a: Place, b: Place) -> tuple[Place, Place] | None:
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
    return (a[0] + begin * dx, a[1] + begin * dy), (a[0] + end * dx, a[1] + end * dy)


def _draw_marks(grid: Grid, series: Series, places: Sequence[Place]) -> None:
    """The glyph of a series at its last point, and "along" it at other columns for every glyph."""
    gap = max(8, grid.width // 5) if series.marks == "along" else grid.width
    due = (GLYPHS.find(series.glyph) * gap) // len(GLYPHS) if series.marks == "along" else grid.width
    for i, place in enumerate(places):
        column = column_of(place[0], grid.width)
        if column >= due or i == len(places) - 1:
            grid.glyph(column, row_of(place[1], grid.height), series.glyph, series.style)
            due = column + gap


def _draw_band(grid: Grid, series: Series, xs: Scale, ys: Scale) -> None:
    """Every other dot between the lower and the upper line."""
    across, down = 2 * grid.width - 1, 4 * grid.height - 1
    pairs: list[tuple[float, float, float]] = []
    for (x, low), (_, high) in zip(series.points[::2], series.points[1::2]):
        place, bottom, top = xs.place(x), ys.place(low), ys.place(high)
        if place is not None and bottom is not None and top is not None:
            pairs.append((place * across, bottom, top))
    for (x0, low0, high0), (x1, low1, high1) in pairwise(pairs):
        for x in range(max(0, round(x0)), min(across, round(x1)) + 1):
            share = (x - x0) / (x1 - x0) if x1 > x0 else 0.0
            low, high = (min(1.0, max(0.0, a + share * (b - a))) for a, b in ((low0, low1), (high0, high1)))
            for y in range(round((1 - high) * down), round((1 - low) * down) + 1):
                if (x + y) % 2 == 0:
                    grid.dot(x, y, series.style)


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
    used = width + 1
    for one in series:
        if not one.name:
            continue
        mark = one.glyph if one.kind == "points" else f"{one.glyph if one.marks else ''}━"
        size = cell_len(mark) + cell_len(one.name) + 3
        if used + size - 2 > width:
            if len(lines) == most or size - 2 > width:
                last = lines[-1] if lines else lines.append([]) or lines[-1]
                last.append(("…"[: max(0, width - used)] if last else "…", "dim"))
                break
            lines.append([])
            used = 0
        lines[-1] += [(f"{mark} ", one.style), (f"{one.name}  ", "")]
        used += size
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
