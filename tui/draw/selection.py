"""The point of a figure that the cursor is on, and the ones around it. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tui.draw.axes import WHOLE, Scale, Window, moved, scale
from tui.draw.chart import Figure, Series, Spot
from tui.model.snapshot import Key

LINES = ("line", "steps")


def spots(figure: Figure, window: Window = WHOLE) -> list[list[Spot]]:
    """The points that belong to a run and lie on both axes: one list for each curve, and one for all single points.

    Curves are in the order of their last values, points and the points of a curve in the order of x.
    """
    xs = _scale(figure, window)
    if xs is None:
        return []
    single: list[Spot] = []
    curves: list[list[Spot]] = []
    any_curve = any(_curve(series) for series in figure.series)
    for series in figure.series:
        found = [Spot(*series.points[i], series.glyph, series.keys[i]) for i in _within(figure, series, xs)]
        if any_curve and len(set(series.keys)) == 1:  # a single point of a run stands for its curve there
            curves += [found] if found else []
        else:
            single += found
    curves.sort(key=lambda curve: curve[-1].y)
    single.sort(key=lambda spot: (spot.x, spot.y))
    return [*([single] if single else []), *curves]


def _scale(figure: Figure, window: Window) -> Scale | None:
    whole = scale([p[0] for s in figure.series for p in s.points], figure.x)
    return whole.part(window) if whole else None


def _within(figure: Figure, series: Series, xs: Scale) -> list[int]:
    """The indices of the points of runs that lie on both axes."""
    if not series.keys:
        return []
    points = np.asarray(series.points, dtype=float).reshape(-1, 2)
    places = xs.places(points[:, 0])
    with np.errstate(invalid="ignore"):
        inside = (places >= 0) & (places <= 1) & np.isfinite(points[:, 1])
        for axis, values in ((figure.x, points[:, 0]), (figure.y, points[:, 1])):
            if axis.low is not None:
                inside &= values >= axis.low
    return np.flatnonzero(inside).tolist()


def _curve(series: Series) -> bool:
    """Whether a series is the curve of one run."""
    return series.kind in LINES and len(series.keys) > 1 and len(set(series.keys)) == 1


def find(figure: Figure, key: Key | None, x: float | None, window: Window = WHOLE) -> Spot | None:
    """The point of a run: that next to `x`, or its last one; None if none is in what is shown."""
    series = [one for one in figure.series if key in one.keys]
    xs = _scale(figure, window) if series else None
    if xs is None:
        return None
    own = [
        Spot(*one.points[i], one.glyph, key) for one in series for i in _within(figure, one, xs) if one.keys[i] == key
    ]
    if not own or x is None:
        return own[-1] if own else None
    return min(own, key=lambda spot: abs(spot.x - x))


def neighbour(groups: Sequence[Sequence[Spot]], at: Spot | None, dx: int, dy: int) -> Spot | None:
    """The point that an arrow key leads to: right and left by x, up and down by y, on curves to the next curve.

    With no point to start from, the highest one.
    """
    every = [spot for group in groups for spot in group]
    if at is None:
        return max(every, key=lambda spot: spot.y, default=None)
    here = at.x
    group = next((group for group in groups if at in group), None)
    if group is None:
        return min(every, key=lambda spot: abs(spot.x - here), default=None)
    several_runs = len({spot.key for spot in group}) > 1
    if dy and not several_runs:
        others = [at if one is group else min(one, key=lambda spot: abs(spot.x - here)) for one in groups]
        others.sort(key=lambda spot: spot.y)
        return _stepped(others, at, dy)
    ordered = sorted(group, key=lambda spot: (spot.y, spot.x)) if dy else list(group)
    return _stepped(ordered, at, dy or dx)


def _stepped(ordered: Sequence[Spot], at: Spot, by: int) -> Spot:
    return ordered[max(0, min(len(ordered) - 1, ordered.index(at) + by))]


def highlighted(figure: Figure, key: Key | None) -> Figure:
    """The figure with the curve of this run on top of the others."""
    own = [series for series in figure.series if _curve(series) and series.keys[0] == key]
    if not own:
        return figure
    others = [series for series in figure.series if series not in own]
    return replace(figure, series=(*others, *(replace(one, style="strong", marks="along") for one in own)))


def share_of(figure: Figure, x: float) -> float | None:
    """Where a value lies on the whole x axis, 0 to 1; None outside."""
    whole = scale([p[0] for s in figure.series for p in s.points], figure.x)
    place = whole.place(x) if whole else None
    return place if place is not None and 0 <= place <= 1 else None


def values_at(figure: Figure, x: float) -> list[tuple[str, Spot]]:
    """For each curve with points its name and its point next to `x`."""
    found: list[tuple[str, Spot]] = []
    for series in figure.series:
        known = [p for p in series.points if math.isfinite(p[1])]
        if known and series.kind != "band" and series.style != "dim":
            found.append((series.name, Spot(*min(known, key=lambda p: abs(p[0] - x)), series.glyph)))
    return found


def along(figure: Figure, x: float | None, by: int, width: int, window: Window = WHOLE) -> float | None:
    """The x of a point that lies at least one of `width` columns to the right, or left, of `x`; None without points."""
    values = sorted({p[0] for s in figure.series for p in s.points if math.isfinite(p[0])})
    whole = scale(values, figure.x)
    if whole is None:
        return None
    xs = whole.part(window)
    values = [v for v in values if (place := xs.place(v)) is not None and 0 <= place <= 1] or values
    if x is None:
        return values[-1] if by < 0 else values[0]
    step = (xs.high - xs.low) / max(1, width)
    place = moved(x, figure.x.log, figure.x.error)
    far = [v for v in values if by * (moved(v, figure.x.log, figure.x.error) - place) >= step]
    return (far[0] if by > 0 else far[-1]) if far else (values[-1] if by > 0 else values[0])
