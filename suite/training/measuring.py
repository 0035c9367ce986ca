"""Measurements of a trial, announced where they take long."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from suite.spec import Measuring

T = TypeVar("T")


def announced(work: Generator[None, None, T], what: str) -> Generator[Measuring, object, T]:
    """Carry out a measurement of `suite.hardware`. Yields one Measuring event where it takes more than two seconds."""
    told = False
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
        if not told:
            told = True
            yield Measuring(what=what)
