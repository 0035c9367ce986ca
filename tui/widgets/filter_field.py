"""The field for the filter of the leaderboard, which completes what is typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from textual import events
from textual.suggester import Suggester
from textual.widgets import Input

from tui.model.filters import Subject, completed, vocabulary


class FilterField(Input):
    """A field that offers the rest of a term in grey; the right arrow or tab takes it."""

    def __init__(self, *, id: str | None = None) -> None:
        self.words: Mapping[str, Sequence[str]] = {}
        example = "acc>.99 flops<10M arm:head state:running"
        super().__init__(placeholder=example, id=id, select_on_focus=False, suggester=_Completion(self))

    def know(self, subjects: Iterable[Subject]) -> None:
        """Complete from these rows."""
        self.words = vocabulary(subjects)

    def key_tab(self, event: events.Key) -> None:
        """Take the completion; without one, tab goes to the next widget."""
        if self._suggestion and self.cursor_at_end:
            event.stop()
            self.action_cursor_right()


class _Completion(Suggester):
    def __init__(self, field: FilterField) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._field = field

    async def get_suggestion(self, value: str) -> str | None:
        return completed(value, self._field.words)
