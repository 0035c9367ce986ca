"""Axes of charts: from values to positions, the part of an axis that is shown, and round ticks. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_ERROR = 1e-5  # smaller errors are drawn as this one: no answer was wrong
LIMIT = 1e100  # larger values are not drawn: arithmetic with them may overflow
DEEPEST = 1 / 64  # the smallest part of an axis that a window shows
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TIMES = (
    *(f * unit for unit in (MINUTE, HOUR) for f in (1, 2, 5, 10, 20, 30)),
    *(f * HOUR for f in (4, 12)),
    *(f * DAY for f in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)  # round durations above half a minute; below, they are decimal


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
    unit: Literal["", "bytes", "seconds"] = ""  # decides which values are round


@dataclass(frozen=True, slots=True)
class Window:
    """The part of an axis that is shown, as shares of the whole."""

    low: float = 0.0
    high: float = 1.0

    def zoomed(self, factor: float, at: float | None = None) -> Window:
        """`factor` times as wide, around `at`, a share of the whole; None: around the middle."""
        width = min(1.0, max(DEEPEST, factor * (self.high - self.low)))
        middle = (self.low + self.high) / 2
        return Window(0.0, width)._begun(middle if at is None else at, 0.5)

    def panned(self, by: float) -> Window:
        """Moved by a share of its width; it stays inside the whole."""
        width = self.high - self.low
        return Window(0.0, width)._begun(self.low + by * width, 0.0)

    def _begun(self, at: float, share: float) -> Window:
        """Of the same width, with `at` at a share of the width, as far as it stays inside the whole."""
        low = min(max(0.0, at - share * self.high), 1 - self.high)
        return Window(low, low + self.high)


WHOLE = Window()


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

    def places(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The positions of many values; NaN for those that cannot be drawn."""
        found = np.full(values.shape, np.nan)
        usable = _drawable(values, self.log)
        known = values[usable]
        if self.error:
            known = -np.log10(np.maximum(1 - known, LEAST_ERROR))
        elif self.log:
            known = np.log10(known)
        found[usable] = (known - self.low) / (self.high - self.low)
        return found

    def part(self, window: Window) -> Scale:
        """The scale of a window's part."""
        span = self.high - self.low
        return Scale(self.low + window.low * span, self.low + window.high * span, self.log, self.error)


def drawable(value: float, log: bool) -> bool:
    """Whether a value can be drawn: finite, its magnitude below LIMIT, and positive on a logarithmic axis."""
    return 1 / LIMIT < value < LIMIT if log else -LIMIT < value < LIMIT  # False for NaN, too


def _drawable(values: NDArray[np.float64], log: bool) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return (values > (1 / LIMIT if log else -LIMIT)) & (values < LIMIT)


def moved(value: float, log: bool, error: bool) -> float:
    """Where a value lies on an axis that is linear, logarithmic, or logarithmic in the error 1 - value."""
    if error:
        return -math.log10(max(1 - value, LEAST_ERROR))
    return math.log10(value) if log else value


def scale(values: ArrayLike, axis: Axis) -> Scale | None:
    """The scale that covers all values, with a margin; None if there are none."""
    known = np.asarray(values, dtype=float)
    known = known[_drawable(known, axis.log)]
    if not known.size:
        return None
    usable = [float(known.min()), float(known.max()), *(v for v in (axis.low, axis.high) if v is not None)]
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
    values = _round_values(scale, axis, max(1, count))
    texts = [axis.text(value) for value in values]
    if any(texts) and len(set(texts)) < len(texts):  # the axis's format is too coarse for this range
        after = " s" if axis.unit == "seconds" else ""
        texts = [f"{100 * value:.7g}%" if scale.error else f"{value:.6g}{after}" for value in values]
    return list(zip(values, texts))


def _round_values(scale: Scale, axis: Axis, count: int) -> list[float]:
    if scale.error:
        errors = _log_ticks(Scale(-scale.high, -scale.low, True), count, "")
        return [round(1 - error, 12) for error in reversed(errors)]
    if scale.log:
        return _log_ticks(scale, count, axis.unit)
    return _linear_ticks(scale, count, axis.whole, axis.unit)


def _linear_ticks(scale: Scale, count: int, whole: bool, unit: str) -> list[float]:
    raw = (scale.high - scale.low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)
    if unit == "seconds" and step > MINUTE / 2:
        step = next((time for time in TIMES if time >= raw * 0.999), step)
    if unit == "bytes":
        step = 2.0 ** math.ceil(math.log2(raw))
    if whole:
        step = max(1.0, step)
    first = math.ceil(scale.low / step - 1e-9)
    last = math.floor(scale.high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)][: 4 * count + 4]


def _log_ticks(scale: Scale, count: int, unit: str) -> list[float]:
    """Powers of ten, with 2 and 5 times them where there is room; equal steps where less than two would lie inside."""
    inside: list[float] = []
    for values in _rounder_and_rounder(scale, unit):
        inside = [v for v in values if scale.low <= math.log10(v) <= scale.high]
        if len(inside) <= count + 1:
            break
    if len(inside) > count + 1:
        return inside[:: math.ceil(len(inside) / count)]
    if len(inside) < 3 and scale.high - scale.low < 2:
        equal = _linear_ticks(Scale(10**scale.low, 10**scale.high, False), min(count, 6), False, unit)
        inside = max(inside, [value for value in equal if value > 0], key=len)
    return inside or [10.0 ** ((scale.low + scale.high) / 2)]


def _rounder_and_rounder(scale: Scale, unit: str) -> list[list[float]]:
    """Lists of values around a logarithmic scale, the ones with fewer and rounder values last."""
    first, last = math.floor(scale.low), math.ceil(scale.high)
    if unit == "bytes":
        low, high = math.floor(scale.low * math.log2(10)), math.ceil(scale.high * math.log2(10))
        return [[2.0**i for i in range(low, high + 1) if i % step == 0] for step in (1, 2, 5, 10)]
    decimal = [[f * 10.0**i for i in range(first, last + 1) for f in factors] for factors in ((1, 2, 5), (1,))]
    if unit == "seconds":
        return [[*(v for v in values if v <= MINUTE / 2), *TIMES] for values in decimal]
    return decimal
