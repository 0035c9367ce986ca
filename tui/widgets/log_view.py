"""A log that can be searched. It follows the end unless it is scrolled up."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input

from tui.draw.log import Drawn, Section, log_lines
from tui.widgets.static import Static

COMPONENTS = {"log--number", "log--title", "log--text"}


class LogLines(ScrollView, can_focus=True, inherit_bindings=False):
    """The lines, of which only those in sight are drawn. The screen's keys scroll them."""

    COMPONENT_CLASSES = COMPONENTS

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Drawn] = []

    def show(self, lines: list[Drawn], *, to_end: bool = False) -> None:
        follow = to_end or self.scroll_offset.y >= self.max_scroll_y
        self.lines = lines
        self.virtual_size = Size(self.scrollable_content_region.width, len(lines))
        if follow:
            self.scroll_end(animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        place = y + self.scroll_offset.y
        number, text = self.lines[place] if place < len(self.lines) else ("", "")
        title = bool(text) and not number
        style = self.get_component_rich_style("log--title" if title else "log--text")
        left = [Segment(f"{number}  ", self.get_component_rich_style("log--number"))] if number else []
        return Strip([*left, Segment(text, style)]).adjust_cell_length(self.size.width, style)


class LogView(Vertical):
    """Lines, and above them a field to search, while there is a search."""

    DEFAULT_CSS = """
    LogView { height: 1fr; }
    LogView > #search { display: none; }
    LogView > #found { height: auto; display: none; }
    LogLines { height: 1fr; width: 1fr; scrollbar-gutter: stable; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sections: Sequence[Section] = ()
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield Input(placeholder="show only lines with this text", id="search", select_on_focus=False, compact=True)
        yield Static(id="found", markup=False)
        yield LogLines()

    @property
    def lines(self) -> LogLines:
        return self.query_one(LogLines)

    @property
    def field(self) -> Input:
        return self.query_one("#search", Input)

    @property
    def searching(self) -> bool:
        return bool(self.field.display)

    def show(self, sections: Sequence[Section]) -> None:
        self._sections = sections
        self._draw()

    def _draw(self, *, to_end: bool = False) -> None:
        width, wanted = self.lines.scrollable_content_region.width, self.field.value
        drawn = (self._sections, width, wanted)
        if not width or drawn == self._drawn:
            return
        first, self._drawn = not self._drawn, drawn
        lines = log_lines(self._sections, wanted, width)
        found, told = sum(bool(n.strip()) for n, _ in lines), self.query_one("#found", Static)
        told.display = bool(wanted)
        told.update(f"{found} line{'s' if found != 1 else ''} with '{wanted}'")
        self.lines.show(lines, to_end=first or to_end)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._draw(to_end=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if not self.field.value:
            self.leave()
        self.lines.focus()

    def search(self) -> None:
        self.field.display = True
        self.field.focus()

    def leave(self) -> None:
        """End the search: all lines are shown."""
        self.field.value = ""
        self.field.display = False
        self.lines.focus()
        self._draw(to_end=True)

    def scroll_by(self, lines: int) -> None:
        self.lines.scroll_relative(y=lines, animate=False)

    def page_by(self, pages: int) -> None:
        self.scroll_by(pages * max(1, self.lines.size.height - 1))

    def edge(self, end: int) -> None:
        self.lines.scroll_home(animate=False) if end < 0 else self.lines.scroll_end(animate=False)
