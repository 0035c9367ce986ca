"""Figures as a report writes them."""

from __future__ import annotations

import time
from collections.abc import Iterable


def percent(value: float | None, digits: int = 2) -> str:
    """0.9712 -> '97.12 %'."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Bounds of an accuracy in percent, cut to 0..100: those of Student's t with few seeds may lie outside."""
    if low is None or high is None:
        return "-"
    return f"{100 * max(0.0, low):.{digits}f} to {100 * min(1.0, high):.{digits}f}"


def points(value: float, digits: int = 2) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * value:+.{digits}f}"


def p_value(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def moment(seconds: float) -> str:
    """Seconds since 1970 -> '2026-11-26 10:22', local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def distinct(values: Iterable[str | None]) -> str:
    """Known values without repetition, in their order."""
    return ", ".join(dict.fromkeys(v for v in values if v)) or "-"
