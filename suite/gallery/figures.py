"""The figures of one published page: a small table, kept as CSV, from which everything else is made.

A row is one figure: what it is about (the study, an arm, or two arms as "A - B"), its name, a value with the bounds of
its 95 % interval and the number of trainings that it comes from, or a text.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from suite.errors import InputError
from suite.ranking.formats import count, duration, size
from suite.reporting.text import interval, p_value, percent, points
from suite.store.files import read_bytes

COLUMNS = ("about", "figure", "value", "low", "high", "n", "text")

STUDY = "study"  # what figures of the whole study are about

SHARES = ("test", "one model", "validation", "search", "ensemble", "test-time augmentation", "ensemble with views")

DIFFERENCES = ("difference", "gain of views", "gain of the ensemble")

PLAIN = {
    "parameters": count,
    "trained parameters": count,
    "FLOPs an image": count,
    "FLOPs of training": count,
    "seconds of training": duration,
    "memory": size,
    "elapsed": duration,
    "p": p_value,
    "McNemar p": p_value,
    "ensemble p": p_value,
}


@dataclass(frozen=True)
class Figure:
    """One figure. Accuracies are shares of one, differences too; times are in seconds, memory in bytes."""

    about: str
    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    text: str = ""

    def __str__(self) -> str:
        """The figure as pages and quotes show it."""
        if self.value is None:
            return self.text or "-"
        if self.name in SHARES:
            return _with_bounds(percent(self.value), interval(self.low, self.high))
        if self.name in DIFFERENCES:
            bounds = "-" if self.low is None or self.high is None else f"{points(self.low)} to {points(self.high)}"
            return _with_bounds(f"{points(self.value)} points", bounds)
        return PLAIN.get(self.name, lambda value: f"{value:g}")(self.value)


def _with_bounds(value: str, bounds: str) -> str:
    return value if bounds == "-" else f"{value} ({bounds})"


class Figures:
    """The figures of a page, in their order."""

    def __init__(self, name: str, figures: Iterable[Figure]) -> None:
        self.name = name
        self._found = {(figure.about, figure.name): figure for figure in figures}

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._found.values())

    def get(self, about: str, name: str) -> Figure:
        """A figure, without value and text where there is none."""
        return self._found.get((about, name), Figure(about, name))

    def difference(self, first: str, second: str) -> Figure | None:
        """By how much `first` is ahead of `second`, whichever way round it was compared; None where it was not."""
        forward, back = self.get(f"{first} - {second}", "difference"), self.get(f"{second} - {first}", "difference")
        if forward.value is not None:
            return forward
        if back.value is None:
            return None
        low, high = (None if bound is None else -bound for bound in (back.high, back.low))
        return replace(back, value=-back.value, low=low, high=high)

    def text(self, name: str) -> str:
        """A text about the study."""
        return self.get(STUDY, name).text

    def number(self, name: str) -> int:
        """A count about the study, 0 where there is none."""
        return int(self.get(STUDY, name).value or 0)

    def about(self, name: str) -> list[str]:
        """Everything that has a figure of this name, in order."""
        return [figure.about for figure in self if figure.name == name]

    @property
    def arms(self) -> list[str]:
        return self.about("test")

    @property
    def shares(self) -> list[float]:
        """The shares of the labels that the study compares, ascending: where each has several arms; else none."""
        counts = Counter(self.get(arm, "labels").value or 1.0 for arm in self.arms)
        return sorted(counts) if len(counts) > 1 and min(counts.values()) > 1 else []

    @property
    def pairs(self) -> list[str]:
        return self.about("difference")


def as_csv(found: Figures) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        numbers = ("" if value is None else f"{value:.9g}" for value in (one.value, one.low, one.high, one.n))
        writer.writerow((one.about, one.name, *numbers, one.text))
    return file.getvalue()


def read(path: Path) -> Figures:
    """The figures of a page from its CSV. Raises InputError where the file is missing or damaged."""
    try:
        rows = list(csv.reader(io.StringIO(read_bytes(path).decode())))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        found = Figures(path.stem, [_figure(row) for row in rows[1:]])
        if not found.arms:
            raise ValueError("it has no arm with a test accuracy")
        return found
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: {error}. `mnist-suite gallery STUDY` writes it anew.") from None


def _figure(row: list[str]) -> Figure:
    about, name, value, low, high, n, text = row
    numbers = [float(cell) if cell else None for cell in (value, low, high)]
    return Figure(about, name, *numbers, n=int(n) if n else None, text=text)
