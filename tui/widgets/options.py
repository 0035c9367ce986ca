"""Lists of options that bear a key before they are drawn. Textual 8.2.8 fails there: it knows no line of theirs yet."""

from __future__ import annotations

from contextlib import suppress

from textual.command import CommandPalette
from textual.widgets import OptionList


class Options(OptionList):
    def action_page_down(self) -> None:
        with suppress(LookupError):
            super().action_page_down()

    def action_page_up(self) -> None:
        with suppress(LookupError):
            super().action_page_up()


class Palette(CommandPalette):
    def _action_command_list(self, action: str) -> None:
        with suppress(LookupError):
            super()._action_command_list(action)
