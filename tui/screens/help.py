"""What every key does on a screen, with a legend and the filter language; typing narrows the list of keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, Label, Static

from tui.draw.aligned import right, widest
from tui.draw.cells import GLYPHS, MARKED, PARETO, PINNED, STATES
from tui.model import filters

LEGEND = "  ".join(f"{GLYPHS[state]} {state}" for state in STATES)
SIGNS = (
    f"{PARETO} on the Pareto front   {MARKED} marked   {PINNED} pinned   ~ interval reaches into that of the line above"
)


class HelpScreen(ModalScreen[None]):
    """The help for the screen `about`, made from its bindings."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1", "dismiss", "Close")]

    def __init__(self, about: Screen) -> None:
        super().__init__()
        rows: dict[tuple[str, str], list[str]] = {}
        for binding in about.active_bindings.values():
            if binding.enabled and binding.binding.description:
                name = (binding.binding.description, binding.binding.action)
                rows.setdefault(name, []).append(about.app.get_key_display(binding.binding))
        shown = [(" ".join(dict.fromkeys(keys)), description) for (description, _), keys in rows.items()]
        width = max(20, widest([keys for keys, _ in shown]))
        self.lines = [f"{right(keys, width)}  {description}" for keys, description in shown]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialogue tall"):
            yield Label("Keys", classes="question")
            yield Input(placeholder="type to narrow; escape closes", id="narrow")
            with VerticalScroll():
                yield Static(id="keys", markup=False)
                yield Static(f"\nSigns\n{LEGEND}\n{SIGNS}\n\nFilter\n{filters.__doc__ or ''}", id="signs", markup=False)

    def on_mount(self) -> None:
        self._show("")
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._show(event.value)

    def _show(self, typed: str) -> None:
        shown = [line for line in self.lines if typed.casefold() in line.casefold()]
        self.query_one("#keys", Static).update("\n".join(shown) or "No key does that here.")
