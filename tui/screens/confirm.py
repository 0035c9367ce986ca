"""Dialogues: yes or no, a line of text, a choice from a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

from tui.keys import bindings
from tui.widgets.options import Options
from tui.widgets.static import Static


class StopScreen(ModalScreen[Literal["study", "trial"] | None]):
    """Whether to stop a study, or only one trial of it. `trial` is None where no trial at work is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("yes", "answer('study')"),
        ("only-trial", "answer('trial')"),
        ("no", "answer('')"),
        hidden=(("back", "answer('')"), ("quit", "answer('')"), ("interrupt", "app.interrupt")),
    )

    def __init__(self, study: str, trial: str | None, command: str) -> None:
        super().__init__()
        self.study, self.trial, self.command = study, trial, command

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Label(f"Stop study {self.study}?", classes="question", markup=False)
            text = "y  the study: its trials save a checkpoint and end; `resume` goes on from there."
            if self.trial is not None:
                text += f"\nt  only trial {self.trial}: it ends at its next evaluation, as pruned; the search goes on."
            yield Static(text, markup=False)
            yield Static(f"$ {self.command}", classes="command", markup=False)
            only = "      t  only this trial" if self.trial is not None else ""
            yield Label(f"y  the study{only}      n  no", classes="hint")

    def action_answer(self, what: str) -> None:
        if what == "trial" and self.trial is None:
            return
        self.dismiss("study" if what == "study" else "trial" if what else None)


class ConfirmScreen(ModalScreen[bool]):
    """A yes-or-no question with its consequences and the equivalent command. Only 'y' is yes."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("yes", "answer(True)"),
        ("no", "answer(False)"),
        hidden=(("back", "answer(False)"), ("quit", "answer(False)"), ("interrupt", "app.interrupt")),
    )

    def __init__(self, question: str, text: str, command: str) -> None:
        super().__init__()
        self.question, self.text, self.command = question, text, command

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Label(self.question, classes="question", markup=False)
            yield Static(self.text, markup=False)
            yield Static(f"$ {self.command}", classes="command", markup=False)
            yield Label("y  yes      n  no", classes="hint")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class PromptScreen(ModalScreen[str | None]):
    """A line of text. `check` returns what is wrong with it, or None; `preview` the command of a valid one."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "cancel", "Cancel"), hidden=(("interrupt", "app.interrupt", "Copy"),)
    )

    def __init__(
        self,
        question: str,
        value: str = "",
        *,
        check: Callable[[str], str | None] = lambda _: None,
        preview: Callable[[str], str] = lambda _: "",
    ) -> None:
        super().__init__()
        self.question, self.value, self.check, self.preview = question, value, check, preview

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Label(self.question, classes="question", markup=False)
            yield Input(self.value, id="answer")
            yield Static(classes="problem", markup=False)
            yield Static(classes="command", markup=False)
            yield Label("enter  go      escape  cancel", classes="hint")

    def on_mount(self) -> None:
        self._validate(self.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._validate(event.value)

    def _validate(self, value: str) -> None:
        problem = self.check(value)
        self.query_one(".problem", Static).update(problem or "")
        self.query_one(".command", Static).update("" if problem else self.preview(value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if self.check(event.value) is None:
            self.dismiss(event.value)

    def action_cancel(self) -> None:
        self.dismiss(None)


class ChooseScreen(ModalScreen[str | None]):
    """A choice from a list, which typing narrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(("back", "cancel", "Cancel"), hidden=(("interrupt", "app.interrupt", "Copy"),)),
        Binding("down", "move(1)", "Down", show=False),  # letters narrow the list
        Binding("up", "move(-1)", "Up", show=False),
    ]

    def __init__(self, question: str, options: Sequence[tuple[str, str]], current: str | None = None) -> None:
        super().__init__()
        self.question, self.options, self.current = question, list(options), current

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue"):
            yield Label(self.question, classes="question", markup=False)
            yield Input(placeholder="type to narrow", id="narrow")
            yield Options(markup=False)

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)

    def _fill(self, typed: str) -> None:
        choices = self.query_one(OptionList)
        choices.clear_options()
        shown = [(key, text) for key, text in self.options if typed.casefold() in text.casefold()]
        choices.add_options([Option(text, id=key) for key, text in shown])
        keys = [key for key, _ in shown]
        if keys:
            choices.highlighted = keys.index(self.current) if self.current in keys else 0

    def action_move(self, by: int) -> None:
        choices = self.query_one(OptionList)
        choices.action_cursor_down() if by > 0 else choices.action_cursor_up()

    def on_input_submitted(self) -> None:
        choices = self.query_one(OptionList)
        if choices.highlighted is not None:
            self.dismiss(choices.get_option_at_index(choices.highlighted).id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)

    def action_cancel(self) -> None:
        self.dismiss(None)
