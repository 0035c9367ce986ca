"""A list to choose several of, in an order: ■ is in, □ is out, so that no colour is needed to tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option


class Checklist(OptionList):
    """Space takes an item in or out, J and K move it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("space", "take", "Take in or out", show=False),
        Binding("J,shift+down", "shift(1)", "Move down", show=False),
        Binding("K,shift+up", "shift(-1)", "Move up", show=False),
    ]

    class Changed(Message):
        """Something was taken in or out, or moved."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self._items: list[tuple[str, str]] = []
        self._in: set[str] = set()

    def fill(self, items: Sequence[tuple[str, str]], chosen: Collection[str], place: int = 0) -> None:
        """Offer (key, text) pairs."""
        self._items, self._in = list(items), set(chosen)
        self._draw(place)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Keys of what is in, in the order shown."""
        return tuple(key for key, _ in self._items if key in self._in)

    def _draw(self, place: int) -> None:
        self.clear_options()
        self.add_options(Option(f"{'■' if key in self._in else '□'} {text}", id=key) for key, text in self._items)
        self.highlighted = place if self._items else None

    def action_take(self) -> None:
        if self.highlighted is not None:
            self._in.symmetric_difference_update({self._items[self.highlighted][0]})
            self._draw(self.highlighted)
            self.post_message(self.Changed())

    def action_shift(self, by: int) -> None:
        if self.highlighted is None or not 0 <= self.highlighted + by < len(self._items):
            return
        place, other = self.highlighted, self.highlighted + by
        self._items[place], self._items[other] = self._items[other], self._items[place]
        self._draw(other)
        self.post_message(self.Changed())
