"""Measurements, announced where they take long."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Word = TypeVar("Word")


def announced(work: Generator[None, None, T], word: Word) -> Generator[Word, object, T]:
    """Carry out a measurement of `suite.hardware`. Yields `word` once where it takes more than two seconds."""
    told = False
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
        if not told:
            told = True
            yield word
