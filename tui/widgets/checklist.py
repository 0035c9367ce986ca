"""A list to choose several items from and to order them: ■ is chosen, □ is not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.message import Message
from textual.widgets.option_list import Option

from tui.keys import bindings
from tui.widgets.options import Options


class Checklist(Options):
    """Space chooses an item or not, J and K move it."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        hidden=(
            ("down", "cursor_down"),
            ("up", "cursor_up"),
            ("mark", "choose", "Choose or not"),
            ("next-run", "shift(1)", "Move down"),
            ("previous-run", "shift(-1)", "Move up"),
        )
    )

    class Changed(Message):
        """An item was chosen, no longer is, or was moved."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self._items: list[tuple[str, str]] = []
        self._chosen: set[str] = set()

    def fill(self, items: Sequence[tuple[str, str]], chosen: Collection[str], place: int = 0) -> None:
        """Show these (key, text) pairs, with the cursor at `place`."""
        self._items, self._chosen = list(items), set(chosen)
        self._draw(place)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Keys of the chosen items, in the order shown."""
        return tuple(key for key, _ in self._items if key in self._chosen)

    def _draw(self, place: int) -> None:
        self.clear_options()
        self.add_options(Option(f"{'■' if key in self._chosen else '□'} {text}", id=key) for key, text in self._items)
        self.highlighted = place if self._items else None

    def action_choose(self) -> None:
        if self.highlighted is not None:
            self._chosen.symmetric_difference_update({self._items[self.highlighted][0]})
            self._draw(self.highlighted)
            self.post_message(self.Changed())

    def action_shift(self, by: int) -> None:
        if self.highlighted is None or not 0 <= self.highlighted + by < len(self._items):
            return
        place, other = self.highlighted, self.highlighted + by
        self._items[place], self._items[other] = self._items[other], self._items[place]
        self._draw(other)
        self.post_message(self.Changed())
