"""How long a measurement may take, in proportion to the work that it is part of."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SHARE = 0.05  # of the work's own time

WORD_SECONDS = 2.0  # a measurement that takes longer is announced


def share(seconds: float, *, least: float, most: float = float("inf")) -> float:
    """Seconds that measuring may take beside work of `seconds`; never less than `least` nor more than `most`."""
    return min(most, max(least, SHARE * seconds))


@dataclass
class Budget:
    """Seconds that a measurement may take, and what it has taken. Each pass is asked for before it begins, with the
    time that it is expected to take, so that the budget is exceeded by one pass at most."""

    seconds: float
    spent: float = 0.0

    def affords(self, expected: float) -> bool:
        return self.spent + expected <= self.seconds

    def announces(self, expected: float) -> bool:
        """Whether more than `WORD_SECONDS` will have passed after a pass of `expected` seconds."""
        return self.spent + expected > WORD_SECONDS


def result(measurement: Generator[object, None, T]) -> T:
    """Carry out a measurement, or other work of this form, without announcing it."""
    while True:
        try:
            next(measurement)
        except StopIteration as end:
            return end.value
