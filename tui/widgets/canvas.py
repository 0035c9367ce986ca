"""28 x 28 pixels to draw on: a cell shows two pixels, or, where there is room, two cells show one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

SIDE = 28
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

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(0,-1)", "Up", show=False),
        Binding("down,j", "move(0,1)", "Down", show=False),
        Binding("left,h", "move(-1,0)", "Left", show=False),
        Binding("right,l", "move(1,0)", "Right", show=False),
        Binding("space", "pen", "Pen down or up"),
        Binding("e", "eraser", "Eraser"),
        Binding("c", "clear", "Clear"),
    ]

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
    def _cells(self) -> int:
        """The width of a pixel in cells, 1 or 2; its height is half of that."""
        return 2 if self.size.width >= 2 * SIDE and self.size.height >= SIDE else 1

    def load(self, pixels: Sequence[Sequence[int]]) -> None:
        """Show an image."""
        self.pixels = [list(line) for line in pixels]
        self._changed()

    def _changed(self) -> None:
        self.refresh()
        self.post_message(self.Drawn())

    def stroke(self, x: int, y: int) -> None:
        """Apply the pen, or the eraser, at one pixel."""
        for dx, dy, level in PEN:
            column, line = x + dx, y + dy
            if 0 <= column < SIDE and 0 <= line < SIDE:
                before = self.pixels[line][column]
                self.pixels[line][column] = 0 if self.erasing else max(before, level)
        self._changed()

    def action_move(self, dx: int, dy: int) -> None:
        self.x = max(0, min(SIDE - 1, self.x + dx))
        self.y = max(0, min(SIDE - 1, self.y + dy))
        if self.down:
            self.stroke(self.x, self.y)
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
        self.down = False
        self._changed()

    # --- mouse ---

    def _pixel(self, event: events.MouseEvent) -> tuple[int, int]:
        x = event.x // self._cells
        y = event.y if self._cells == 2 else 2 * event.y
        return max(0, min(SIDE - 1, x)), max(0, min(SIDE - 1, y))

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
        a, b = self._last
        steps = max(abs(x - a), abs(y - b), 1)
        for i in range(1, steps + 1):  # mouse events are far apart: draw the line between
            self.stroke(round(a + (x - a) * i / steps), round(b + (y - b) * i / steps))
        self._last = (x, y)
        self.x, self.y = x, y

    # --- drawing ---

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if self._cells == 2:
            segments = (
                [Segment("  " if not self._at(x, y) else "><", self._style(x, y, x, y)) for x in range(SIDE)]
                if y < SIDE
                else []
            )
        else:
            rows = (2 * y, 2 * y + 1)
            segments = (
                [Segment("▀", self._style(x, rows[0], x, rows[1])) for x in range(SIDE)] if 2 * y + 1 < SIDE else []
            )
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _at(self, x: int, y: int) -> bool:
        return self.has_focus and (x, y) == (self.x, self.y)

    def _style(self, x: int, y: int, x2: int, y2: int) -> Style:
        if self._cells == 2:
            grey = self.pixels[y][x]
            ink = "black" if grey > 128 else "white"
            return Style(color=ink, bgcolor=self._colour(x, y), bold=True)
        return Style(color=self._colour(x, y), bgcolor=self._colour(x2, y2))

    def _colour(self, x: int, y: int) -> Color:
        grey = self.pixels[y][x]
        if self._at(x, y) and self._cells == 1:
            return Color.from_rgb(255, 90, 90) if not self.erasing else Color.from_rgb(90, 140, 255)
        return Color.from_rgb(max(grey, 24), max(grey, 24), max(grey, 28))
