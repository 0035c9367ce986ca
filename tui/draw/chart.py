"""Charts as text: series in, lines of styled pieces out. Pure functions.

Lines are drawn in braille characters (2 x 4 dots a cell), points as glyphs. The plotting libraries for terminals lack
logarithmic axes or glyphs that can be told apart without colour, or take far more than the few milliseconds that
eight curves of a thousand points may take here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

from tui.draw.aligned import cut, right, widest

Piece = tuple[str, str]  # text, name of its style; "": the default style
GLYPHS = "●◆■▲▼✚○◇"
STYLES = tuple(f"series-{i}" for i in range(8))
LEAST_ERROR = 1e-5  # smaller errors are drawn as this one: no answer was wrong
LIMIT = 1e100  # larger values are not drawn: arithmetic with them may overflow
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # braille bits by [x][y]


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) of one quantity. Points that are not `drawable` are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: Literal["line", "points", "steps"] = "line"
    style: str = STYLES[0]
    glyph: str = GLYPHS[0]


@dataclass(frozen=True, slots=True)
class Axis:
    """How the values of one axis are scaled and labelled."""

    title: str = ""
    log: bool = False
    error: bool = False  # the values are shares of right answers, placed by the logarithm of the error
    text: Callable[[float], str] = lambda v: f"{v:.4g}"  # the label of a tick
    low: float | None = None  # lower limit; None: that of the data
    high: float | None = None
    labels: tuple[tuple[float, str], ...] = ()  # fixed ticks, for categories
    whole: bool = False  # ticks at whole numbers only


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to positions between 0 and 1. The limits are `moved` values."""

    low: float
    high: float
    log: bool
    error: bool = False

    def place(self, value: float) -> float | None:
        if not drawable(value, self.log):
            return None
        return (moved(value, self.log, self.error) - self.low) / (self.high - self.low)


def drawable(value: float, log: bool) -> bool:
    """Whether a value can be drawn: finite, its magnitude below LIMIT, and positive on a logarithmic axis."""
    return 1 / LIMIT < value < LIMIT if log else -LIMIT < value < LIMIT  # False for NaN, too


def moved(value: float, log: bool, error: bool) -> float:
    """Where a value lies on an axis that is linear, logarithmic, or logarithmic in the error 1 - value."""
    if error:
        return -math.log10(max(1 - value, LEAST_ERROR))
    return math.log10(value) if log else value


def scale(values: Sequence[float], axis: Axis) -> Scale | None:
    """The scale that covers all values, with a margin; None if there are none."""
    usable = [v for v in values if drawable(v, axis.log)]
    usable += [v for v in (axis.low, axis.high) if v is not None]
    if not usable:
        return None
    low = moved(min(usable) if axis.low is None else axis.low, axis.log, axis.error)
    high = moved(max(usable) if axis.high is None else axis.high, axis.log, axis.error)
    if high - low < 1e-9 * max(1e-3, abs(low)):
        pad = 0.5 if axis.log or axis.error else max(abs(low) * 0.05, 1e-3)
        return Scale(low - pad, high + pad, axis.log, axis.error)
    pad = 0.03 * (high - low)
    below, above = (0 if axis.low is not None else pad), (0 if axis.high is not None else pad)
    return Scale(low - below, high + above, axis.log, axis.error)


def ticks(scale: Scale, axis: Axis, count: int) -> list[tuple[float, str]]:
    """About `count` round values with their labels."""
    if axis.labels:
        step = max(1, math.ceil(len(axis.labels) / max(1, count)))
        return list(axis.labels[::step])
    if scale.error:
        values = [1 - error for error in _log_ticks(Scale(-scale.high, -scale.low, True), count)]
    else:
        values = _log_ticks(scale, count) if scale.log else _linear_ticks(scale, count, axis.whole)
    texts = [axis.text(value) for value in values]
    if any(texts) and len(set(texts)) < len(texts):  # the axis's format is too coarse for this range
        texts = [f"{value:.6g}" for value in values]
    return list(zip(values, texts))


def _linear_ticks(scale: Scale, count: int, whole: bool) -> list[float]:
    span = scale.high - scale.low
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), 10 * power)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)][: 4 * count + 4]


def _log_ticks(scale: Scale, count: int) -> list[float]:
    decades = range(math.ceil(scale.low), math.floor(scale.high) + 1)
    if len(decades) > count:
        return [10.0**i for i in decades[:: math.ceil(len(decades) / max(1, count))]]
    first, last = math.floor(scale.low), math.ceil(scale.high)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [f * 10.0**i for i in range(first, last + 1) for f in factors]
        inside = [v for v in values if scale.low <= math.log10(v) <= scale.high]
        if len(inside) <= count + 1:
            break
    return inside or [10.0 ** ((scale.low + scale.high) / 2)]


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
                if pieces and (pieces[-1][1] == style or text == " "):
                    pieces[-1] = (pieces[-1][0] + text, pieces[-1][1])
                else:
                    pieces.append((text, style))
            lines.append(pieces)
        return lines


def draw(
    width: int, height: int, series: Sequence[Series], x: Axis, y: Axis, *, legend: bool = True
) -> list[list[Piece]]:
    """Draw a chart as exactly `height` lines of at most `width` cells; a sentence if there is nothing to draw."""
    if width < 1 or height < 1:
        return []
    xs = scale([p[0] for s in series for p in s.points], x)
    ys = scale([p[1] for s in series for p in s.points], y)
    if xs is None or ys is None:
        return _padded([[(cut("Nothing to draw yet.", width), "dim")]], height)
    header = _legend(width, series) if legend and height >= 8 else []
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
    for one in series:
        _draw_series(grid, one, xs, ys)
    lines = [*header, *_with_y_axis(grid, ys, marks, gutter)]
    if footer:
        lines += _x_axis(room, gutter, xs, x)
        if footer == 3:
            lines.append([(right(cut(x.title, width), width), "dim")])
    return _padded(lines, height)


def _draw_series(grid: Grid, series: Series, xs: Scale, ys: Scale) -> None:
    points = thin(series.points, grid.width * 2) if series.kind == "line" else series.points
    before: tuple[int, int] | None = None
    for a, b in points:
        px, py = xs.place(a), ys.place(b)
        if px is None or py is None:
            before = None
            continue
        if series.kind == "points":
            grid.glyph(column_of(px, grid.width), row_of(py, grid.height), series.glyph, series.style)
            continue
        here = (round(px * (2 * grid.width - 1)), round((1 - py) * (4 * grid.height - 1)))
        if before is None:
            grid.dot(*here, series.style)
        elif series.kind == "steps":
            grid.line(*before, here[0], before[1], series.style)
            grid.line(here[0], before[1], *here, series.style)
        else:
            grid.line(*before, *here, series.style)
        before = here


def _legend(width: int, series: Sequence[Series]) -> list[list[Piece]]:
    pieces: list[Piece] = []
    used = 0
    for one in series:
        if not one.name:
            continue
        mark = one.glyph if one.kind == "points" else "━"
        size = cell_len(one.name) + 4
        if used + size > width:
            pieces.append(("…"[: width - used], "dim"))
            break
        pieces += [(f"{mark} ", one.style), (f"{one.name}  ", "")]
        used += size
    return [pieces] if pieces else []


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
