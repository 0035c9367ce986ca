"""Explanations in half-blocks: the picture, its maps and the nearest training images. Pure functions.

What speaks for the class is bright orange, what speaks against it blue, over the picture in dark grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from rich.color import Color
from rich.style import Style
from rich.text import Text

from suite.spec import Attribution, Explanation, Explanations, Raster
from tui.draw.aligned import cut
from tui.draw.images import UPPER, beside, halfblocks
from tui.model.logs import clean

GAP = 2  # cells between pictures

SIDES = (10, 28)  # fewest and most pixels a side

TITLES = {
    "saliency": "saliency",
    "integrated-gradients": "int. gradients",
    "grad-cam": "Grad-CAM",
    "occlusion": "occlusion",
}

FOR, AGAINST = (255, 176, 40), (30, 96, 220)

GROUND = 0.35  # brightness of the picture below a map

Rows = Sequence[Sequence[float]]


def explained(found: Explanations, width: int) -> list[Text]:
    """All explanations of a trial, the notes first."""
    lines = [Text(clean(note), style="dim") for note in found.notes]
    for one in found.explanations:
        lines += [*([Text("")] if lines else []), Text(answer(one, found.classes), style="bold"), *pictures(one, width)]
        if one.nearest:
            lines += neighbours(one, found.classes, width)
    return lines


def answer(one: Explanation, classes: Sequence[str]) -> str:
    """What was answered, and which class the maps are about."""
    words = f"{one.image}: {classes[one.predicted]} {100 * one.probability:.1f}%"
    if one.label is not None and one.label != one.predicted:
        words += f", it is {classes[one.label]}"
    if one.target != one.predicted:
        words += f"; maps for {classes[one.target]} ({100 * one.target_probability:.1f}%)"
    return clean(words)


def pictures(one: Explanation, width: int) -> list[Text]:
    """The picture and its maps beside one another, with what was found of them."""
    side = side_in(width, 1 + len(one.maps))
    grey = boxed(greys(one.picture), side)
    blocks: list[list[Text]] = [[*halfblocks([[round(v) for v in row] for row in grey]), Text("input")]]
    for attribution in one.maps:
        lines = overlaid(grey, boxed(attribution.rows, side))
        blocks.append(
            [*lines, *(Text(cut(words, side)) for words in (TITLES[attribution.method], checked(attribution)))]
        )
    return beside(blocks, max(width, side), GAP)


def neighbours(one: Explanation, classes: Sequence[str], width: int) -> list[Text]:
    """The nearest training images with their classes and distances."""
    side = side_in(width, max(5, len(one.nearest)))
    blocks: list[list[Text]] = []
    for neighbour in one.nearest:
        grey = boxed(greys(neighbour.picture), side)
        words = clean(f"{classes[neighbour.label]}  {neighbour.distance:.3f}")
        blocks.append([*halfblocks([[round(v) for v in row] for row in grey]), Text(cut(words, side))])
    return [Text("nearest training images, with 1 - cosine of the features", style="dim"), *beside(blocks, width, GAP)]


def checked(attribution: Attribution) -> str:
    """'.03 of .60': the mean probability while pixels are removed, by the map and at random."""
    if attribution.deletion is None or attribution.random is None:
        return ""
    return f"{attribution.deletion:.2f} of {attribution.random:.2f}"


def side_in(width: int, count: int) -> int:
    """Pixels a side with which `count` pictures fit beside one another, within bounds."""
    least, most = SIDES
    return max(least, min(most, (width - GAP * (count - 1)) // count))


def greys(picture: Raster) -> list[list[float]]:
    """Rows of grey levels 0 to 255."""
    data, n = picture.content, picture.channels
    values = [sum(data[i : i + n]) / n for i in range(0, len(data), n)]
    return [values[start : start + picture.width] for start in range(0, len(values), picture.width)]


def boxed(rows: Rows, side: int) -> list[list[float]]:
    """Rows at no more than `side` values a side, each the mean of those that it stands for."""
    return _transposed([_means(line, side) for line in _transposed([_means(line, side) for line in rows])])


def _transposed(rows: Rows) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _means(line: Sequence[float], side: int) -> list[float]:
    n = len(line)
    if n <= side:
        return list(line)
    edges = [i * n // side for i in range(side + 1)]
    return [sum(line[a:b]) / (b - a) for a, b in pairwise(edges)]


def overlaid(grey: Rows, values: Rows) -> list[Text]:
    """A map, rows of values -127 to 127, over a picture of the same size; a cell shows two pixels."""
    largest = max((abs(v) for row in values for v in row), default=0) or 1
    colours = [[_colour(g, v / largest) for g, v in zip(*rows)] for rows in zip(grey, values)]
    lines: list[Text] = []
    for top in range(0, len(colours), 2):
        lower = colours[top + 1] if top + 1 < len(colours) else [(0, 0, 0)] * len(colours[top])
        line = Text(no_wrap=True, end="")
        for pair in zip(colours[top], lower):
            line.append(UPPER, _style(*pair))
        lines.append(line)
    return lines


RGB = tuple[int, int, int]


def _colour(grey: float, value: float) -> RGB:
    """The picture's grey, blended with the colour of the value's sign by its magnitude in 16 steps."""
    ink, part, ground = FOR if value > 0 else AGAINST, round(16 * abs(value)) / 16, GROUND * grey
    red, green, blue = (round(ground * (1 - part) + part * channel) & ~3 for channel in ink)
    return red, green, blue


@lru_cache(maxsize=65_536)
def _style(upper: RGB, lower: RGB) -> Style:
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))


SHADES = " ░▒▓█"  # of what speaks for the class, where there are no colours

MINUS = "-"  # what speaks against it, from a quarter of the largest value on


def shaded(attribution: Attribution, side: int) -> list[Text]:
    """A map without colours; a character stands for two rows."""
    values = boxed(attribution.rows, side)
    pairs = [values[top : top + 2] for top in range(0, len(values), 2)]
    means = [[sum(column) / len(column) for column in zip(*pair, strict=True)] for pair in pairs]
    largest = max((abs(v) for row in means for v in row), default=0) or 1
    lines = []
    for row in means:
        parts = [v / largest for v in row]
        marks = [MINUS if v < -0.25 else SHADES[round(max(v, 0) * (len(SHADES) - 1))] for v in parts]
        lines.append(Text("".join(marks).ljust(side), no_wrap=True, end=""))
    return lines


def plain(one: Explanation, width: int) -> list[Text]:
    """The maps beside one another without colours, with their names."""
    side = side_in(width, max(1, len(one.maps)))
    blocks = [[*shaded(a, side), Text(cut(TITLES[a.method], side)), Text(cut(checked(a), side))] for a in one.maps]
    return beside(blocks, width, GAP)
