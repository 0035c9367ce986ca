"""What a screen may use of the application, so that screens need not import `tui.app`, which imports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tui.model.board import Board
from tui.model.detail import Detail
from tui.model.jobs import Task
from tui.model.snapshot import Key, Snapshot
from tui.model.view import View


class Upkeep(Protocol):
    """Notes, archive and trash. `tui.upkeep` implements it."""

    def ask_note(self, study: str, trial: str = "") -> None:
        """Edit the note and the tags of a trial, or of the study itself."""
        ...

    def archive(self, study: str, trials: Sequence[str] = ("",)) -> None:
        """Put trials or the study itself out of sight, or back."""
        ...

    def ask_delete(self, study: str, trial: str | None = None) -> None:
        """Move a study or trial to the trash after a confirmation."""
        ...


class Launching(Protocol):
    """Commands of `mnist-suite`. `tui.launching` implements it."""

    @property
    def tasks(self) -> list[Task]:
        """The commands that were started here, at work or ended."""
        ...

    def start(self, words: list[str], log: Path, begun: str, done: str, study: str = "", trials: int = 0) -> bool:
        """Start `mnist-suite WORDS` detached, its output appended to `log`; say whether it started.

        `begun` is shown at once and `done` when the command has succeeded; a failure is shown with its last line.
        `study` is the study in which it works, `trials` the number that its search will have.
        """
        ...

    def open_log(self, study: str | None = None) -> None:
        """Show the log of the newest command, in this study or at all; else the study's console.log."""
        ...

    def ask_final(self, study: str) -> None:
        """Start the final evaluation of a study after a confirmation."""
        ...

    def ask_launch(self, study: str | None) -> None:
        """Open the launch form, empty or filled in with the settings of `study`."""
        ...

    def ask_export(self, key: Key) -> None:
        """Export a trial's model to a directory that the user is asked for."""
        ...

    def ask_explain(self, key: Key) -> None:
        """Explain a finished trial's worst mistakes after a confirmation."""
        ...

    def ask_stop(self, study: str, trial: str | None = None) -> None:
        """Request a clean stop of a study, or the end of one of its trials, after a confirmation."""
        ...

    def ask_resume(self, study: str) -> None:
        """Start a new controller for a study after a confirmation."""
        ...


class Session(Protocol):
    """State that the screens share, and what they may ask of the application. `tui.app.Dashboard` implements it."""

    results: Path
    readonly: bool
    clock: Callable[[], float]  # seconds since 1970
    environment: dict[str, str]  # of child processes

    snapshot: Snapshot
    details: dict[Key, Detail]  # of the trials that are followed
    problem: str | None  # why the last read failed

    view: View
    board: Board  # as the leaderboard shows it
    marked: set[Key]
    pinned: set[Key]
    focus_key: Key | None  # the run under the cursor, on whichever screen

    @property
    def upkeep(self) -> Upkeep: ...

    @property
    def launching(self) -> Launching: ...

    def follow(self, keys: Iterable[Key]) -> None:
        """Read the complete logs of these trials, and of no others."""
        ...

    def refresh_screen(self) -> None:
        """Update the visible screen after a change of the shared state."""
        ...

    def action_mode(self, mode: str) -> None:
        """Switch to one of the main screens: board, plots, studies, system or pad."""
        ...
