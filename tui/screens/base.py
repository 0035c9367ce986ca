"""What all screens that show live data share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.screen import Screen

from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot

if TYPE_CHECKING:
    from tui.app import Dashboard


WRITES = frozenset({"launch", "stop", "resume", "clone", "export", "save_view"})  # none of these under --readonly


class LiveScreen(Screen[None]):
    """A screen that is told when the feed has news, and again when it comes back into sight."""

    #: of which trials the whole log is needed while this screen is in sight
    followed: tuple[Key, ...] = ()

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (self.dashboard.readonly and action in WRITES)

    def on_mount(self) -> None:
        self._catch_up()

    def on_screen_resume(self) -> None:
        self._catch_up()

    def _catch_up(self) -> None:
        self.dashboard.feed.follow(self.followed)
        self.update(self.dashboard.snapshot, self.dashboard.details)

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        """Show the news. Called on the UI thread, at most twice a second."""
