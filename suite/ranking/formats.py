"""Figures as people read them: counts, bytes, durations, shares, hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count(value: float) -> str:
    """1234567 -> '1.23M': three significant digits with a decimal prefix."""
    for power, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{letter}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes: 1536 -> '1.5 KiB'."""
    for power, letter in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= power:
            number = value / power
            return f"{number:.0f} {letter}" if number >= 999.5 else f"{number:.3g} {letter}"
    return f"{value:.0f} B"


def duration(value: float) -> str:
    """Seconds, from '15 µs' to '2.5 h'."""
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    if value >= 120:
        return f"{value / 60:.1f} min"
    if value >= 0.1:
        return f"{value:.1f} s"
    return f"{value * 1e3:.2g} ms" if value >= 1e-4 else f"{value * 1e6:.2g} µs"


def percent(value: float) -> str:
    """0.9712 -> '97.12%'."""
    return f"{100 * value:.2f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points: 0.0012 -> '+0.12'."""
    return f"{100 * value:+.2f}"


def hyperparameters(values: Mapping[str, Any]) -> str:
    """{'recipe.lr': 0.05} -> 'lr=0.05'; '-' where nothing was tuned."""
    shown = [(path.rpartition(".")[2], f"{v:.3g}" if isinstance(v, float) else str(v)) for path, v in values.items()]
    return " ".join(f"{name}={value}" for name, value in shown) or "-"
