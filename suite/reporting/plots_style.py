"""What the report's pictures share: size, style, how each arm is drawn, axes of errors, legends.

Every arm has its own marker and line style, so the pictures can be read in black and white as well.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from suite.reporting.fonts import families

WIDTH = 4.6  # inches: one column of a phone

DPI = 200  # of PNGs: some 900 pixels wide, as a README shows them

# Okabe and Ito, "Color universal design", https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

MARKERS = "os^Dv<>P*X"

LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo")

STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "mnist-suite",  # without it the ids in the SVG, and so the file, would differ from run to run
}


@dataclass(frozen=True)
class Look:
    """How one arm is drawn, everywhere."""

    color: str
    marker: str
    line: Any
    hatch: str


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """A look for every arm, by its place among the arms."""
    return {
        arm: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)], HATCHES[i % len(HATCHES)])
        for i, arm in enumerate(arms)
    }


def figure(height: float = 3.2, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    """A figure WIDTH inches wide with its axes, or with an array of axes (rows, columns)."""
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(WIDTH, height), layout="constrained")
        return made, made.subplots(rows, columns, squeeze=rows == columns == 1)


def as_svg(made: Figure) -> bytes:
    return _saved(made, format="svg", metadata={"Date": None})


def as_png(made: Figure, source: str | None = None) -> bytes:
    """A PNG; `source` says in the file what it was drawn from."""
    return _saved(made, format="png", dpi=DPI, metadata={"Software": None, "Source": source})


def _saved(made: Figure, **options: Any) -> bytes:
    """The file. Texts that matplotlib's own font cannot write get one that can, if there is one."""
    for text in made.findobj(Text):
        assert isinstance(text, Text)
        found = families(text.get_text())
        if found is not None and len(found) > 1:
            text.set_fontfamily(list(found))
    file = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box; `labels` avoids it
        made.savefig(file, **options)
    return file.getvalue()


def error_axis(axes: Axes, label: str = "validation error, %") -> None:
    """A logarithmic axis of error rates with plain numbers on it."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(error_locator(*axes.get_ylim()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(label)


def error_locator(low: float, high: float) -> Locator:
    """Ticks of an error axis: within one decade, multiples of powers of ten would be too few."""
    return MaxNLocator(5) if high < 8 * low else LogLocator(subs=(1, 2, 5))


def error(accuracy: float, images: int) -> float:
    """Percent wrong. No mistake at all is drawn as half a mistake, since a logarithmic axis has no zero."""
    return 100 * max(1 - accuracy, 0.5 / max(images, 1))


def legend(axes: Axes, order: Sequence[str] | None = None) -> None:
    """A legend below the axes, in the order of `order` where given."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    if order is not None:
        labels, handles = zip(*sorted(zip(labels, handles), key=lambda pair: order.index(pair[0])))
    assert isinstance(axes.figure, Figure)
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)


def labels(names: Sequence[str]) -> list[str]:
    """How names are written in a picture: as they are, or as numbers from 1 where no font has their characters."""
    return [str(i) for i in range(1, len(names) + 1)] if numbered(names) else [literal(name) for name in names]


def numbered(names: Sequence[str]) -> bool:
    """Whether `labels` writes numbers, so that a key has to say which is which."""
    return families("".join(names)) is None


def literal(text: str) -> str:
    """Text of others for a picture: matplotlib takes what stands between two dollars for a formula."""
    return text.replace("$", r"\$")
