"""What all screens that show live data share."""

from __future__ import annotations

from typing import ClassVar, cast

from textual.binding import BindingType
from textual.screen import Screen

from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot
from tui.session import Session

# actions disabled by --readonly
WRITES = frozenset(
    {
        "launch",
        "stop",
        "resume",
        "clone",
        "export",
        "save_view",
        "final",
        "note",
        "archive",
        "delete",
        "undo",
        "explain",
    }
)


class LiveScreen(Screen[None]):
    """A screen that is updated whenever the feed has news, and when it becomes visible again."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(("help", "app.help"))  # first in the footer, where all is cut off

    #: trials whose complete logs are read while this screen is visible
    followed: tuple[Key, ...] = ()

    @property
    def session(self) -> Session:
        return cast("Session", self.app)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (self.session.readonly and action in WRITES)

    def on_mount(self) -> None:
        self._show_present()

    def on_screen_resume(self) -> None:
        self._show_present()

    def _show_present(self) -> None:
        self.session.follow(self.followed)
        self.redraw()

    def redraw(self) -> None:
        """Show the present state, after a change of what or how this screen shows."""
        self.update(self.session.snapshot, self.session.details)

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        """Show this state. Called on the UI thread, at most twice a second."""
