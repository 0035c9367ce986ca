"""Figures of accuracy against hyperparameters: slice, rank, contour and parallel coordinates. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from tui.draw.axes import drawable, scale
from tui.draw.cells import title
from tui.draw.chart import SHADES, STYLES, Axis, Figure, Series
from tui.draw.figures import accuracy_axis, finished, percent, points_by_arm, tuned_keys
from tui.draw.importance import importances
from tui.model.board import row_value
from tui.model.snapshot import Run

QUINTILES = "○◔◑◕●"  # of accuracy, the worst fifth first
QUINTILE_STYLES = (STYLES[7], STYLES[3], STYLES[1], STYLES[0], STYLES[2])
RASTER = (72, 30)  # columns and rows of the contour
FEW = 5  # values of a hyperparameter that is hardly an axis
NEAREST = 3  # trials that make the level of a cell of it
MOST_SITES = 500  # trials behind the contour
NOT_TUNED = "No trial with tuned values passes the filter. A sweep tunes what its experiment's space names."


def slice_figure(runs: Sequence[Run], key: str, *, arms: Sequence[str] = (), linear: bool = False) -> Figure:
    """Accuracy against one hyperparameter."""
    points = {run.key: row_value(run.row, key) for run in runs}
    done = [run for run in runs if run.row.accuracy is not None and points[run.key] is not None]
    axis, place = axis_of(key, [points[run.key] for run in done])
    series = points_by_arm(done, arms, lambda run: (place(points[run.key]), run.row.accuracy or 0.0))
    y, notes = accuracy_axis([r.row.accuracy or 0.0 for r in done], linear)
    return Figure(tuple(series), axis, y, notes, NOT_TUNED)


def axis_of(key: str, values: Sequence[object]) -> tuple[Axis, Callable[[object], float]]:
    """An axis for the values of a hyperparameter, and the position of a value on it.

    Numbers that span a decade or more get a logarithmic axis, values that are not numbers a category each.
    """
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values) and values:
        numbers = [float(v) for v in values]  # type: ignore[arg-type]
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= 10
        return Axis(title(key), log=log, text=lambda v: f"{v:.3g}"), lambda v: float(v)  # type: ignore[arg-type]
    names = sorted({str(v) for v in values})
    places = {name: float(i) for i, name in enumerate(names)}
    labels = tuple((place, name) for name, place in places.items())
    return Axis(title(key), labels=labels, low=-0.5, high=len(names) - 0.5), lambda v: places[str(v)]


def pairs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Pairs of hyperparameters: those of more than FEW values first, then those that accuracy depends on most."""
    known = [one.key for one in importances(runs)]
    known += [key for key in tuned_keys(runs) if key not in known]
    few = {key for key in known if len({str(run.row.tuned.get(key)) for run in runs}) <= FEW}
    return sorted(combinations(known, 2), key=lambda p: (sum(key in few for key in p), sum(map(known.index, p))))


def rank_figure(runs: Sequence[Run], pair: tuple[str, str] | None) -> Figure:
    """Two hyperparameters, with the fifth of the trials that an accuracy belongs to as the glyph."""
    if pair is None:
        return Figure((), Axis(), Axis(), empty=NOT_TUNED)
    done, x, y, places = _placed(runs, pair)
    fifths: list[list[int]] = [[] for _ in QUINTILES]
    for place, i in enumerate(sorted(range(len(done)), key=lambda i: done[i].row.accuracy or 0.0)):
        fifths[place * len(QUINTILES) // len(done)].append(i)
    series = []
    for members, glyph, style in zip(fifths, QUINTILES, QUINTILE_STYLES):
        if members:
            low = min(done[i].row.accuracy or 0.0 for i in members)
            keys = [done[i].key for i in members]
            series.append(Series(f"from {percent(low)}", [places[i] for i in members], "points", style, glyph, keys))
    return Figure(
        tuple(series),
        x,
        y,
        ("Glyphs: fifths of the trials by accuracy; of pruned ones it is the best so far.",),
        _needs(pair),
    )


def contour_figure(runs: Sequence[Run], pair: tuple[str, str] | None, *, arms: Sequence[str] = ()) -> Figure:
    """Two hyperparameters, with the accuracy that trials reach around there as shades, and the trials on top."""
    if pair is None:
        return Figure((), Axis(), Axis(), empty=NOT_TUNED)
    done, x, y, places = _placed(runs, pair)
    at = {run.key: place for run, place in zip(done, places)}
    series = points_by_arm(done, arms, lambda run: at[run.key])
    accuracies = [run.row.accuracy or 0.0 for run in done]
    ordered = sorted(accuracies)
    limits = [ordered[i * len(ordered) // len(SHADES)] for i in range(1, len(SHADES))] if ordered else []
    notes = (
        "  ".join(f"{shade} from {percent(limit)}" for shade, limit in zip(SHADES[1:], limits)),
        f"Shades: mean of the {NEAREST} nearest trials, by inverse distance on these axes; no model.",
    )
    return Figure(tuple(series), x, y, notes, _needs(pair), _raster(places, accuracies, limits, x, y))


def _needs(pair: tuple[str, str]) -> str:
    return f"No trial with an accuracy that tuned both {title(pair[0])} and {title(pair[1])}. H chooses others."


def _placed(runs: Sequence[Run], pair: tuple[str, str]) -> tuple[list[Run], Axis, Axis, list[tuple[float, float]]]:
    """The runs with an accuracy and both hyperparameters, the axes, and the runs' places on them."""
    done = [run for run in runs if run.row.accuracy is not None and all(key in run.row.tuned for key in pair)]
    axes = [axis_of(key, [run.row.tuned[key] for run in done]) for key in pair]
    (x, first), (y, second) = axes
    return done, x, y, [(first(run.row.tuned[pair[0]]), second(run.row.tuned[pair[1]])) for run in done]


def _raster(
    places: Sequence[tuple[float, float]], values: Sequence[float], limits: Sequence[float], x: Axis, y: Axis
) -> tuple[tuple[int, ...], ...]:
    """For every cell of RASTER the number of limits that the weighted mean of the nearest values reaches."""
    xs, ys = scale([a for a, _ in places], x), scale([b for _, b in places], y)
    if xs is None or ys is None:
        return ()
    same: dict[tuple[float, float], list[float]] = {}  # trials at one place count as one
    for (a, b), value in zip(places, values):
        if drawable(a, x.log) and drawable(b, y.log):
            same.setdefault((a, b), []).append(value)
    known = [(xs.place(a), ys.place(b), fmean(found)) for (a, b), found in same.items()][-MOST_SITES:]
    if len(known) < NEAREST:
        return ()
    sites = np.array(known, dtype=float)
    columns, rows = (np.arange(n) + 0.5 for n in RASTER)
    across, up = np.meshgrid(columns / RASTER[0], 1 - rows / RASTER[1])
    apart = (across[..., None] - sites[:, 0]) ** 2 + (up[..., None] - sites[:, 1]) ** 2
    nearest = np.argpartition(apart, NEAREST - 1, axis=-1)[..., :NEAREST]
    weights = 1 / (np.take_along_axis(apart, nearest, axis=-1) + 1e-6)
    means = (weights * sites[nearest, 2]).sum(axis=-1) / weights.sum(axis=-1)
    levels = np.searchsorted(np.array(limits), means, side="right")
    return tuple(tuple(row) for row in levels.tolist())


def parallel_figure(runs: Sequence[Run]) -> Figure:
    """Parallel coordinates: an axis for each hyperparameter, a line for each run; the best quarter is highlighted.

    Every axis is scaled to 0..1 by itself; the notes tell its ends.
    """
    done = finished(runs)
    keys = [key for key in tuned_keys(done) if sum(key in r.row.tuned for r in done) >= 2]
    if not keys:
        return Figure((), Axis(), Axis(), empty=NOT_TUNED)
    scales, ends = zip(*(_parallel_axis(done, key) for key in keys))
    accuracies = sorted(r.row.accuracy or 0.0 for r in done)
    low, high = accuracies[0], accuracies[-1]
    threshold = accuracies[int(0.75 * (len(accuracies) - 1))]
    best: list[Series] = []
    rest: list[Series] = []
    for run in done:
        accuracy = run.row.accuracy or 0.0
        points = [(float(i), p) for i, where in enumerate(scales) if (p := where(run)) is not None]
        points.append((float(len(keys)), (accuracy - low) / (high - low) if high > low else 0.5))
        run_keys = [run.key] * len(points)
        if accuracy >= threshold:
            name = "" if best else "best quarter"
            best.append(Series(name, points, "line", "strong", keys=run_keys, marks="along"))
        else:
            rest.append(Series("", points, "line", "dim", keys=run_keys))
    labels = (*((float(i), title(key)) for i, key in enumerate(keys)), (float(len(keys)), "accuracy"))
    notes = (*ends, f"accuracy: {percent(low)} (bottom) … {percent(high)} (top)")
    return Figure((*rest, *best), Axis(labels=labels), Axis(text=lambda v: "", low=0.0, high=1.0), notes)


def _parallel_axis(runs: Sequence[Run], key: str) -> tuple[Callable[[Run], float | None], str]:
    """The place of a run on the axis of a hyperparameter, 0 to 1, and the ends of the axis in words."""
    values = [r.row.tuned[key] for r in runs if key in r.row.tuned]
    axis, place = axis_of(key, values)

    def height(value: object) -> float:
        return math.log10(place(value)) if axis.log else place(value)

    low, high = min(map(height, values)), max(map(height, values))

    def where(run: Run) -> float | None:
        if key not in run.row.tuned:
            return None
        return (height(run.row.tuned[key]) - low) / (high - low) if high > low else 0.5

    texts = [name for _, name in axis.labels] or [f"{min(values):.3g}", f"{max(values):.3g}"]
    return where, f"{title(key)}: {texts[0]} (bottom) … {texts[-1]} (top)"
