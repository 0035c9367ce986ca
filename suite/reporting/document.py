"""The building blocks of a report: sections of text, tables and pictures. The templates decide on the layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text; the templates escape it."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind: str = "table"


def known(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Table:
    """A table without the columns in which every cell is '-'; the first column always stays."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
    return Table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], caption)


@dataclass(frozen=True)
class Picture:
    name: str  # of the file, without suffix
    title: str
    alt: str  # what it shows, in words
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Gallery:
    pictures: Sequence[Picture]
    kind: str = "gallery"


Block = Text | Table | Gallery


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block]
