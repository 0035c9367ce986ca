"""Choice and order of the leaderboard's columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label

from tui.draw.cells import title
from tui.keys import bindings
from tui.model.view import DEFAULT_COLUMNS
from tui.widgets.checklist import Checklist

NAMES = {"flag": "marks, pins and Pareto stars"}


class ColumnsScreen(ModalScreen[tuple[str, ...] | None]):
    """A list of all columns, the chosen ones first and in their order."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("reset", "reset", "Default columns"), ("back", "cancel", "Cancel"), hidden=(("interrupt", "app.interrupt"),)
    )

    def __init__(self, chosen: Sequence[str], known: Sequence[str]) -> None:
        super().__init__()
        self.chosen, self.known = chosen, known

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue tall"):
            yield Label("Columns", classes="question")
            yield Checklist()
            yield Label("space  in or out    J K  move    0  default    enter  done    escape  cancel", classes="hint")

    def on_mount(self) -> None:
        self._fill(self.chosen)

    def _fill(self, chosen: Collection[str]) -> None:
        keys = [*chosen, *(key for key in self.known if key not in chosen)]
        self.query_one(Checklist).fill([(key, NAMES.get(key) or title(key)) for key in keys], chosen)

    def action_reset(self) -> None:
        self._fill(DEFAULT_COLUMNS)

    def on_option_list_option_selected(self) -> None:
        self.dismiss(self.query_one(Checklist).chosen)

    def action_cancel(self) -> None:
        self.dismiss(None)
