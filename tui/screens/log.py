"""The output of a command, or the console.log of a study, as it grows."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Footer

from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.logs import LogReader, Numbered
from tui.model.snapshot import Key, Snapshot
from tui.screens.base import LiveScreen
from tui.widgets.log_view import LogView
from tui.widgets.status_line import StatusLine


class LogScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "close"),
        ("filter", "search", "Search"),
        ("first", "edge(-1)", "Top"),
        ("last", "edge(1)", "Follow the end"),
        hidden=(
            ("down", "scroll(1)"),
            ("up", "scroll(-1)"),
            ("page-down", "page(1)"),
            ("page-up", "page(-1)"),
        ),
    )

    def __init__(self, name: str, path: Path) -> None:
        super().__init__()
        self.log_name, self.path = name, path
        self._reader = LogReader(path)
        self._lines: list[Numbered] | None = None  # None: not read yet

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield LogView()
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(LogView).lines.focus()

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show(f"Log of {self.log_name}", snapshot, session.problem, session.readonly)
        self._read()

    @work(thread=True, exclusive=True, exit_on_error=False)
    def _read(self) -> None:
        """In a thread, since the results may lie on a slow disk."""
        if self._reader.poll() or self._lines is None:
            self.app.call_later(self._show, self._reader.lines)

    def _show(self, lines: list[Numbered]) -> None:
        self._lines = lines
        if self.is_mounted:
            shown = lines or [(1, "Nothing has been written yet.")]
            self.query_one(LogView).show([(str(self.path), shown)])

    def action_search(self) -> None:
        self.query_one(LogView).search()

    def action_scroll(self, by: int) -> None:
        self.query_one(LogView).scroll_by(by)

    def action_page(self, by: int) -> None:
        self.query_one(LogView).page_by(by)

    def action_edge(self, end: int) -> None:
        self.query_one(LogView).edge(end)

    def action_close(self) -> None:
        if self.query_one(LogView).searching:
            self.query_one(LogView).leave()
        else:
            self.dismiss()
