"""The leaderboard's table. Only visible lines are composed, so its cost does not depend on the number of rows.

Not Textual's DataTable: that takes 0.8 ms a cell to add, and its cursor keeps a coordinate, not a trial, when rows
move.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.draw.aligned import left, right
from tui.draw.cells import LEFT, STATES, cell, counted, title
from tui.keys import bindings
from tui.model.board import Board, BoardLine
from tui.model.snapshot import Key
from tui.model.view import View

FIXED = ("flag", "rank", "number")  # columns that stay while the others scroll sideways
GAP = "  "
NARROW = 90  # cells; below, states are glyphs and long names are shortened


class RunTable(ScrollView, can_focus=True):
    """Shows the lines of a `Board`. The cursor stays on its run when lines move."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        hidden=(
            ("up", "move(-1)"),
            ("down", "move(1)"),
            ("page-up", "page(-1)"),
            ("page-down", "page(1)"),
            ("first", "edge(-1)"),
            ("last", "edge(1)"),
            ("left", "sideways(-1)", "Scroll left"),
            ("right", "sideways(1)", "Scroll right"),
        )
    )
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"run-table--{name}" for name in (*STATES, "header", "cursor", "front", "marked", "empty", "sorted")
    }

    cursor: reactive[int] = reactive(0)

    class Moved(Message):
        """The cursor is on another run."""

        def __init__(self, key: Key | None) -> None:
            super().__init__()
            self.key = key

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunTable.Moved)

    class Opened(Message):
        """A run was double-clicked."""

        def __init__(self, key: Key) -> None:
            super().__init__()
            self.key = key

    class Sorted(Message):
        """A heading was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column = column

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.board = Board()
        self.view = View()
        self.marked: Collection[Key] = ()
        self.pinned: Collection[Key] = ()
        self._cursor_key: Key | None = None  # the run under the cursor
        self._moved = False  # whether the cursor has been moved
        self._loading = False  # whether runs were still being read when the board was shown last
        self._chosen: Key | None = None  # the run that it was put on; a filter or a replay may hide it for a while
        self.empty = ""  # shown in place of lines
        self._widths: dict[str, int] = {}
        self._narrow = False  # fewer than `NARROW` cells

    # --- what is shown ---

    def show(
        self,
        board: Board,
        view: View,
        *,
        marked: Collection[Key] = (),
        pinned: Collection[Key] = (),
        empty: str = "",
        loading: bool = False,
    ) -> None:
        """Show a board. The cursor stays on its run, and that run at its height on the screen.

        It begins on the best run, and stays on the best one while runs are still being read (`loading`).
        """
        if view.columns != self.view.columns or view.sort != self.view.sort or view.grouped != self.view.grouped:
            self._widths = {}
        begins = not self._moved and (self._cursor_key is None or self._loading)
        before = board.active if begins else self.cursor
        self.board, self.view, self.marked, self.pinned, self.empty = board, view, marked, pinned, empty
        self._measure()
        places = () if begins else (board.place(self._chosen), board.place(self._cursor_key))
        place = next((place for place in places if place is not None), None)
        cursor = place if place is not None else max(0, min(before, len(board.lines) - 1))
        if cursor != before and place is not None:
            offset = max(0, min(before - self.scroll_offset.y, self._room.height - 2))
            self.set_reactive(RunTable.cursor, cursor)
            self.scroll_to(y=max(0, cursor - offset), animate=False, immediate=True, force=True)
        else:
            self.set_reactive(RunTable.cursor, cursor)
        self._report_move()
        self._loading = loading
        self._chosen = self._chosen or (None if loading else self.current_key)
        self.refresh()

    def _report_move(self) -> None:
        """Post a message if another run is under the cursor than before."""
        key = self.current_key
        if key != self._cursor_key:
            self._cursor_key = key
            self.post_message(self.Moved(key))

    @property
    def current(self) -> BoardLine | None:
        lines = self.board.lines
        return lines[self.cursor] if 0 <= self.cursor < len(lines) else None

    @property
    def current_key(self) -> Key | None:
        return self.current.key if self.current else None

    @property
    def _room(self) -> Size:
        """The size without the scrollbars."""
        return self.scrollable_content_region.size

    # --- moving ---

    def action_move(self, by: int) -> None:
        self._go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._go(self.cursor + by * max(1, self._room.height - 2))

    def action_edge(self, end: int) -> None:
        self._go(0 if end < 0 else len(self.board.lines) - 1)

    def action_sideways(self, by: int) -> None:
        """Scroll by a whole column."""
        starts = [0]
        for key in self._columns()[1]:
            starts.append(starts[-1] + self._widths[key] + len(GAP))
        x = self.scroll_offset.x
        there = [start for start in starts[:-1] if (start > x if by > 0 else start < x)]
        if there:
            self.scroll_to(x=min(there) if by > 0 else max(there), animate=False)

    def go_to(self, key: Key | None) -> None:
        """Put the cursor on the line of this run, if it has one."""
        if (place := self.board.place(key)) is not None:
            self._go(place)

    def _go(self, place: int) -> None:
        self._moved = True
        self.cursor = max(0, min(place, len(self.board.lines) - 1))
        self._chosen = self.current_key or self._chosen

    def watch_cursor(self) -> None:
        self._report_move()
        visible = max(1, self._room.height - 1)
        top = self.scroll_offset.y
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True, force=True)
        elif self.cursor >= top + visible:
            self.scroll_to(y=self.cursor - visible + 1, animate=False, immediate=True, force=True)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            if column := self._column_at(event.x):
                self.post_message(self.Sorted(column))
            return
        place = event.y - 1 + self.scroll_offset.y
        if place < len(self.board.lines):
            if place == self.cursor and self.has_focus and event.chain > 1 and (key := self.current_key):
                self.post_message(self.Opened(key))
            self._go(place)

    def _column_at(self, x: int) -> str | None:
        fixed, rest = self._columns()
        left = 0
        for key in fixed:
            if x < left + self._widths[key] + len(GAP):
                return key
            left += self._widths[key] + len(GAP)
        x += self.scroll_offset.x
        for key in rest:
            if x < left + self._widths[key] + len(GAP):
                return key
            left += self._widths[key] + len(GAP)
        return None

    # --- drawing ---

    def _columns(self) -> tuple[list[str], list[str]]:
        """The columns that stay, and those that scroll. On a narrow screen, all columns scroll."""
        columns = [key for key in self.view.columns if key in self._widths]
        count = 0
        if self._room.width >= 40:
            while count < len(columns) and columns[count] in FIXED:
                count += 1
        return columns[:count], columns[count:]

    def on_resize(self) -> None:
        self._widths = {}
        self._measure()
        self.watch_cursor()

    def _measure(self) -> None:
        """Fit the columns to the visible lines. Widths only grow, so that columns do not jump while scrolling."""
        self._narrow = self._room.width < NARROW
        top = max(0, min(self.scroll_offset.y, len(self.board.lines) - 1))
        seen = list(enumerate(self.board.lines[top : top + max(self._room.height, 30)], top))
        for key in self.view.columns:
            here = max((cell_len(self._cell(line, key, place)) for place, line in seen), default=0)
            self._widths[key] = max(self._widths.get(key, 0), here, cell_len(self._heading(key)))
        for key in [key for key in self._widths if key not in self.view.columns]:
            del self._widths[key]
        width = sum(self._widths.values()) + len(GAP) * max(0, len(self._widths) - 1)
        size = Size(width, len(self.board.lines) + 1 + bool(self.board.folded))
        if size != self.virtual_size:
            self.virtual_size = size

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._measure()

    def _heading(self, key: str) -> str:
        if key == "state" and self._narrow:
            return ""
        arrow = ("▴" if self.view.reverse else "▾") if key == self.view.sort else ""
        return title(key) + arrow

    def _cell(self, line: BoardLine, key: str, place: int) -> str:
        return cell(
            line,
            key,
            place,
            board=self.board,
            view=self.view,
            marked=self.marked,
            pinned=self.pinned,
            narrow=self._narrow,
        )

    def render_line(self, y: int) -> Strip:
        width = self._room.width
        base = self.rich_style
        if y == 0:
            style = self._style("header")
            head = self._strip([self._heading(key) for key in self.view.columns], style, width)
            if self.scroll_offset.x + width < self.virtual_size.width:  # there are more columns
                head = Strip.join([head.crop(0, width - 2), Strip([Segment(" →", style)], 2)])
            return head
        place = self.scroll_offset.y + y - 1
        lines = self.board.lines
        if place >= len(lines):
            text = self.empty if not lines and y == min(2, self._room.height - 1) else ""
            if place == len(lines) and self.board.folded:
                text = f"{counted(self.board.folded)}: z shows them"
            style = base + self._style("empty") if text else base
            return Strip([Segment(left(f"  {text}" if text else "", width), style)], width)
        line = lines[place]
        state = line.row.state if line.row.state in STATES else "waiting"
        style = base + self._style(state)
        if line.key in self.board.front:
            style += self._style("front")
        if any(run.key in self.marked for run in line.runs):
            style += self._style("marked")
        if place == self.cursor:
            style += self._style("cursor") if self.has_focus else self._style("cursor") + Style(dim=True)
        return self._strip([self._cell(line, key, place) for key in self.view.columns], style, width)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"run-table--{name}", partial=True)

    def _strip(self, texts: list[str], style: Style, width: int) -> Strip:
        by_key = dict(zip(self.view.columns, texts))
        fixed, rest = self._columns()
        left = "".join(self._fit(by_key[key], key) + GAP for key in fixed)
        room = max(0, width - cell_len(left))
        x = self.scroll_offset.x
        right, end = "", 0
        for key in rest:
            cells = self._fit(by_key[key], key)
            end += self._widths[key]
            whole = end <= x + room or key in LEFT  # a number that is cut off reads as another number
            right += (cells if whole else " " * self._widths[key]) + GAP
            end += len(GAP)
        strip = Strip([Segment(right, style)]).crop(x, x + room).adjust_cell_length(room, style)
        return Strip.join([Strip([Segment(left, style)], cell_len(left)), strip]).adjust_cell_length(width, style)

    def _fit(self, text: str, key: str) -> str:
        width = self._widths[key]
        return left(text, width) if key in LEFT else right(text, width)
