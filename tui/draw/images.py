"""Grey images in half-blocks, two pixels a cell, and confusion matrices, as Rich texts. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from rich.color import Color
from rich.style import Style
from rich.text import Text

from tui.draw.aligned import cut, right, widest
from tui.model.detail import Validation, Wrong

UPPER = "▀"


@lru_cache(maxsize=65_536)
def _style(upper: int, lower: int) -> Style:
    return Style(color=Color.from_rgb(upper, upper, upper), bgcolor=Color.from_rgb(lower, lower, lower))


def halfblocks(pixels: Sequence[Sequence[int]]) -> list[Text]:
    """An image, given as rows of grey levels 0 to 255; a cell shows two pixels, one above the other."""
    lines: list[Text] = []
    for top in range(0, len(pixels), 2):
        upper = pixels[top]
        lower = pixels[top + 1] if top + 1 < len(pixels) else [0] * len(upper)
        line = Text(no_wrap=True, end="")
        for u, low in zip(upper, lower):
            line.append(UPPER, _style(_grey(u), _grey(low)))
        lines.append(line)
    return lines


def _grey(value: int) -> int:
    return max(0, min(255, int(value)))


def beside(blocks: Sequence[Sequence[Text]], width: int, gap: int = 2) -> list[Text]:
    """Place blocks of lines side by side, as many in a row as fit into `width` cells."""
    lines: list[Text] = []
    row: list[Sequence[Text]] = []
    used = 0
    for block in [*blocks, None]:
        size = max((line.cell_len for line in block), default=0) if block is not None else 0
        if row and (block is None or used + gap + size > width):
            lines += _joined(row, gap)
            lines.append(Text(""))
            row, used = [], 0
        if block is not None:
            used += size + (gap if row else 0)
            row.append(block)
    return lines


def _joined(blocks: Sequence[Sequence[Text]], gap: int) -> list[Text]:
    sizes = [max((line.cell_len for line in block), default=0) for block in blocks]
    lines: list[Text] = []
    for i in range(max(len(block) for block in blocks)):
        line = Text(no_wrap=True, end="")
        for block, size in zip(blocks, sizes):
            part = block[i] if i < len(block) else Text("")
            line.append_text(part)
            line.append(" " * (size - part.cell_len + gap))
        lines.append(line)
    return lines


def worst_mistakes(validation: Validation, width: int) -> list[Text]:
    """The most confident misclassified images, each with its label, the prediction and its probability."""
    blocks: list[list[Text]] = []
    for wrong in validation.worst:
        caption = f"{_name(validation, wrong.label)} taken for {_name(validation, wrong.predicted)}"
        below = f"{100 * wrong.probability:.1f}%  #{wrong.index}"
        blocks.append([*halfblocks(_small(wrong)), Text(cut(caption, 28)), Text(below)])
    return beside(blocks, max(28, width))


def _small(wrong: Wrong) -> Sequence[Sequence[int]]:
    """The image with at most 28 pixels a side; of larger ones every n-th pixel."""
    step = max(1, math.ceil(max(len(wrong.pixels), 1) / 28))
    return [line[::step] for line in wrong.pixels[::step]]


def _name(validation: Validation, index: int) -> str:
    return validation.classes[index] if 0 <= index < len(validation.classes) else str(index)


def confusion_heatmap(validation: Validation, width: int) -> list[Text]:
    """The confusion matrix: rows are labels, columns predictions; errors are shaded by the logarithm of their count."""
    classes, counts = validation.classes, validation.confusion
    most = max((n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=0)
    name = min(12, max(1, widest(list(classes))))
    cell = max(2, min(6, (width - name - 8) // max(1, len(classes))))
    lines = [Text(" " * (name + 1) + "".join(" " + right(c, cell - 1) for c in classes) + "   right", end="")]
    for i, row in enumerate(counts):
        line = Text(right(classes[i], name) + " ", no_wrap=True, end="")
        total = sum(row)
        for j, n in enumerate(row):
            if i == j:
                line.append(_count(n, cell), Style(bold=True))
                continue
            level = math.log1p(n) / math.log1p(most) if most else 0.0
            grey = round(235 * level)
            ink = "black" if grey > 130 else "white"
            style = (
                Style(color=ink, bgcolor=Color.from_rgb(grey, round(grey * 0.62), round(grey * 0.2)))
                if n
                else Style(dim=True)
            )
            line.append(_count(n, cell) if n else right("·", cell), style)
        line.append(f"  {100 * row[i] / total:.2f}%" if total else "  -")
        lines.append(line)
    return lines


def _count(n: int, width: int) -> str:
    text = str(n)
    return right(text if len(text) <= width else f"{n / 1000:.0f}k", width)
