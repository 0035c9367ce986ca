"""The widget around `tui.draw.chart`. It draws again only if its content or its size has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.draw.axes import WHOLE, Axis, Window
from tui.draw.chart import STYLES, Figure, Piece, Series, Spot, draw


class Chart(Widget):
    """A chart of series, in colours of the theme."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--dim",
        "chart--strong",
        "chart--cursor",
        *(f"chart--{name}" for name in STYLES),
    }

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._content: tuple[Figure, Window, Spot | None] = (Figure((), Axis(), Axis()), WHOLE, None)
        self._lines: list[list[Piece]] = []
        self._drawn: tuple[int, int] | None = None

    def show(self, series: Sequence[Series], x: Axis, y: Axis) -> None:
        """Show series without anything else of a figure."""
        self.show_figure(Figure(tuple(series), x, y))

    def show_figure(self, figure: Figure, window: Window = WHOLE, cursor: Spot | None = None) -> None:
        """Show the part of a figure that lies in `window`, with a crosshair at `cursor`."""
        if (figure, window, cursor) == self._content:
            return
        self._content = (figure, window, cursor)
        self._drawn = None
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        if self._drawn != (width, height):
            figure, window, cursor = self._content
            self._lines = draw(width, height, figure, window=window, cursor=cursor)
            self._drawn = (width, height)
        base = self.rich_style
        pieces = self._lines[y] if y < len(self._lines) else []
        segments = [Segment(text, base + self._piece_style(name)) for text, name in pieces if text]
        return Strip(segments).adjust_cell_length(width, base)

    def _piece_style(self, name: str) -> Style:
        return self.get_component_rich_style(f"chart--{name}", partial=True) if name else Style.null()
