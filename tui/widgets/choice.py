"""A field whose value is one of a few: left and right change it, enter shows the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.message import Message
from textual.widget import Widget

from tui.keys import bindings


class Choice(Widget, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        hidden=(
            ("left", "change(-1)", "Value before"),
            ("right", "change(1)", "Next value"),
            ("mark", "change(1)", "Next value"),
            ("open", "list", "List of values"),
        )
    )

    class Changed(Message):
        """Another value was chosen."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

        @property
        def control(self) -> Choice:
            return self.choice

    class Asked(Message):
        """The list of all values is wanted."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

    def __init__(self, values: Sequence[str], value: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.values = tuple(values) if value in values else (value, *values)
        self.value = value

    @property
    def _all_fit(self) -> bool:
        return sum(len(value) + 3 for value in self.values) <= self.size.width

    def render(self) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        if self._all_fit:
            for value in self.values:
                text.append(f" {value} ", "reverse" if value == self.value else "")
                text.append(" ")
        else:
            text.append(f"‹ {self.value} ›")
        return text

    def choose(self, value: str | None) -> None:
        if value is not None and value != self.value:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self))

    def action_change(self, by: int) -> None:
        self.choose(self.values[(self.values.index(self.value) + by) % len(self.values)])

    def action_list(self) -> None:
        self.post_message(self.Asked(self))

    def on_click(self, event: events.Click) -> None:
        if not self._all_fit:
            self.action_list()
            return
        right = 0
        for value in self.values:
            right += len(value) + 3
            if event.x < right:
                self.choose(value)
                return
