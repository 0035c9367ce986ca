"""One line on the point of a figure that the cursor is on. Pure functions."""

from __future__ import annotations

from suite.ranking.leaderboard import text
from tui.draw.cells import title, value_text
from tui.draw.chart import Axis, Figure, Spot
from tui.model.detail import clean
from tui.model.snapshot import Run


def label(axis: Axis, value: float) -> str:
    """A value as the axis labels it."""
    return dict(axis.labels).get(value) or axis.text(value)


def about(figure: Figure, spot: Spot | None, run: Run | None) -> str:
    """The trial under the cursor, its values in the figure, and what was tuned."""
    if run is None:
        return "Arrow keys choose a point."
    name = f"{run.row.study}/{run.row.number:04d}"
    if spot is None:
        return clean(f"{name} ({run.row.state}) is not in what is shown. Arrow keys choose another trial.")
    words = [f"{spot.glyph} {name} {run.row.arm}"]
    if run.row.accuracy is not None:
        words.append(text(run.row, "accuracy"))
    known = {words[-1], ""}
    for axis, value in ((figure.x, spot.x), (figure.y, spot.y)):
        text_of = label(axis, value)
        if text_of not in known and axis.title and not axis.title.startswith("validation accuracy"):
            words.append(f"{axis.title} {text_of}")
    said = {figure.x.title, figure.y.title}
    words += [f"{title(key)}={value_text(value)}" for key, value in run.row.tuned.items() if title(key) not in said]
    return clean("  ".join(words))


def at_point(figure: Figure, quantity: str, values: list[tuple[str, Spot]]) -> list[str]:
    """The values of a quantity's curves at the crosshair."""
    return [f"{name or quantity.replace('_', ' ')} {figure.y.text(spot.y)}" for name, spot in values]
