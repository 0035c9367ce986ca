"""A square picture to draw on: a cell shows two pixels, or, where there is room, two cells show one.

A drawing has 28 x 28 pixels; a sample that is loaded keeps its own size. Of a picture that is too large for the
widget, every n-th pixel is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.keys import bindings

SIDE = 28  # pixels of a drawing
# a soft round pen as (dx, dy, grey level), about as thick as the strokes of MNIST
PEN = (
    (0, 0, 255),
    (1, 0, 200),
    (-1, 0, 160),
    (0, 1, 200),
    (0, -1, 160),
    (1, 1, 110),
    (-1, -1, 60),
    (1, -1, 60),
    (-1, 1, 60),
)


class Canvas(Widget, can_focus=True):
    """Arrow keys move the pen, space puts it down or lifts it, the mouse draws. `pixels[y][x]` is 0 to 255."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("mark", "pen", "Pen down or up"),
        ("eraser", "eraser"),
        ("reset", "clear", "Clear"),
        hidden=(("up", "move(0,-1)"), ("down", "move(0,1)"), ("left", "move(-1,0)"), ("right", "move(1,0)")),
    )

    class Drawn(Message):
        """The picture or the pen changed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Canvas.Drawn)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pixels = [[0] * SIDE for _ in range(SIDE)]
        self.x = self.y = SIDE // 2
        self.down = False
        self.erasing = False
        self._last: tuple[int, int] | None = None

    @property
    def side(self) -> int:
        """Pixels a side."""
        return len(self.pixels)

    @property
    def _cells(self) -> int:
        """The width of a shown pixel in cells, 1 or 2; its height is half of that."""
        return 2 if self.size.width >= 2 * self.side and self.size.height >= self.side else 1

    @property
    def _step(self) -> int:
        """Every so many pixels one is shown."""
        width, height = max(1, self.size.width), max(1, self.size.height)
        return max(1, math.ceil(self.side / width), math.ceil(self.side / (2 * height)))

    def load(self, pixels: Sequence[Sequence[int]]) -> None:
        """Show a square image."""
        self.pixels = [list(line) for line in pixels]
        self.x = self.y = self.side // 2
        self._changed()

    def _changed(self) -> None:
        self.refresh()
        self.post_message(self.Drawn())

    def stroke(self, x: int, y: int) -> None:
        """Apply the pen, or the eraser, at one pixel."""
        for dx, dy, level in PEN:
            column, line = x + dx, y + dy
            if 0 <= column < self.side and 0 <= line < self.side:
                before = self.pixels[line][column]
                self.pixels[line][column] = 0 if self.erasing else max(before, level)
        self._changed()

    def action_move(self, dx: int, dy: int) -> None:
        x, y = self.x, self.y
        self.x, self.y = self._inside(x + dx * self._step), self._inside(y + dy * self._step)
        if self.down:
            self._line(x, y, self.x, self.y)
        self.refresh()

    def action_pen(self) -> None:
        self.down = not self.down
        if self.down:
            self.stroke(self.x, self.y)
        self._changed()

    def action_eraser(self) -> None:
        self.erasing = not self.erasing
        self._changed()

    def action_clear(self) -> None:
        self.pixels = [[0] * SIDE for _ in range(SIDE)]
        self.x, self.y = self._inside(self.x), self._inside(self.y)
        self.down = False
        self._changed()

    # --- mouse ---

    def _pixel(self, event: events.MouseEvent) -> tuple[int, int]:
        x = event.x // self._cells * self._step
        y = (event.y if self._cells == 2 else 2 * event.y) * self._step
        return self._inside(x), self._inside(y)

    def _inside(self, place: int) -> int:
        return max(0, min(self.side - 1, place))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self.capture_mouse()
        self._last = self._pixel(event)
        self.stroke(*self._last)

    def on_mouse_up(self) -> None:
        self.release_mouse()
        self._last = None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._last is None:
            return
        x, y = self._pixel(event)
        self._line(*self._last, x, y)  # mouse events are far apart
        self._last = (x, y)
        self.x, self.y = x, y

    def _line(self, a: int, b: int, x: int, y: int) -> None:
        steps = max(abs(x - a), abs(y - b), 1)
        for i in range(1, steps + 1):
            self.stroke(round(a + (x - a) * i / steps), round(b + (y - b) * i / steps))

    # --- drawing ---

    def render_line(self, y: int) -> Strip:
        columns = range(0, self.side, self._step)
        segments: list[Segment] = []
        if self._cells == 2 and y < self.side:
            segments = [Segment("><" if self._at(x, y) else "  ", self._style(x, y)) for x in columns]
        elif self._cells == 1 and (upper := 2 * y * self._step) < self.side:
            lower = upper + self._step
            styles = [Style(color=self._colour(x, upper), bgcolor=self._colour(x, lower)) for x in columns]
            segments = [Segment("▀", style) for style in styles]
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def _at(self, x: int, y: int) -> bool:
        """Whether the pen is at this pixel, or at one near it that is not shown."""
        step = self._step
        return self.has_focus and (x // step, y // step) == (self.x // step, self.y // step)

    def _style(self, x: int, y: int) -> Style:
        ink = "black" if self.pixels[y][x] > 128 else "white"
        return Style(color=ink, bgcolor=self._colour(x, y), bold=True)

    def _colour(self, x: int, y: int) -> Color:
        grey = self.pixels[y][x] if y < self.side else 0
        if self._at(x, y) and self._cells == 1:
            return Color.from_rgb(255, 90, 90) if not self.erasing else Color.from_rgb(90, 140, 255)
        return Color.from_rgb(max(grey, 24), max(grey, 24), max(grey, 28))
