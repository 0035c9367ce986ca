"""The note and the tags of a trial or a study, in a dialogue."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from suite.errors import InputError
from suite.store.notes import Note, checked, tags_of
from tui.keys import bindings
from tui.widgets.static import Static


class NoteScreen(ModalScreen[Note | None]):
    """A line for the note and one for the tags; returns what was written, None where it was cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "cancel", "Cancel"), ("start", "save", "Save"), hidden=(("interrupt", "app.interrupt"),)
    )

    def __init__(self, about: str, note: Note) -> None:
        super().__init__()
        self.about, self.note = about, note

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Label(f"Note and tags of {self.about}", classes="question", markup=False)
            yield Input(self.note.text, placeholder="a note, for all who see these results", id="note")
            yield Input(" ".join(self.note.tags), placeholder="tags: one-word another", id="tags")
            yield Static(classes="problem", markup=False)
            yield Label("enter  save      tab  to the other line      escape  cancel", classes="hint")

    @property
    def written(self) -> Note:
        """Raises InputError."""
        text, tags = self.query_one("#note", Input).value, self.query_one("#tags", Input).value
        return checked(text, tags_of(tags), archived=self.note.archived)

    def on_input_changed(self) -> None:
        problem = ""
        try:
            _ = self.written
        except InputError as error:
            problem = str(error)
        self.query_one(".problem", Static).update(problem)

    def on_input_submitted(self) -> None:
        self.action_save()

    def action_save(self) -> None:
        with suppress(InputError):  # which is shown
            self.dismiss(self.written)

    def action_cancel(self) -> None:
        self.dismiss(None)
