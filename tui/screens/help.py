"""What every key does on a screen, with a legend and the filter language; typing narrows the list of keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, Label

from tui.draw.aligned import right, widest
from tui.draw.cells import GLYPHS, MARKED, PARETO, PINNED, STATES, TIED
from tui.keys import MEANINGS, SECTIONS, bindings
from tui.model import filters
from tui.widgets.static import Static

LEGEND = "  ".join(f"{GLYPHS[state]} {state}" for state in STATES)
SIGNS = (
    f"{PARETO} on the Pareto front   {MARKED} marked   {PINNED} pinned   "
    f"{TIED} not distinguishable from the best on its validation set (95 %)\n"
    f"{GLYPHS['running']} 40% 30 s left: 40 % of the training is done"
)


class HelpScreen(ModalScreen[None]):
    """The help for the screen `about`, made from its bindings."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(("back", "dismiss", "Close"), hidden=(("interrupt", "app.interrupt"),)),
        Binding("down", "scroll(2)", "Down", show=False),  # letters narrow the list
        Binding("up", "scroll(-2)", "Up", show=False),
        Binding("pagedown", "scroll(12)", "Page down", show=False),
        Binding("pageup", "scroll(-12)", "Page up", show=False),
    ]

    def __init__(self, about: Screen) -> None:
        super().__init__()
        keys: dict[tuple[str, str, str], list[str]] = {}
        for active in about.active_bindings.values():
            binding = active.binding
            if active.enabled and binding.description:
                meaning = MEANINGS.get(binding.id or "")
                row = (meaning.section if meaning else SECTIONS[-1], binding.description, binding.id or "")
                keys.setdefault(row, []).append(about.app.get_key_display(binding))
        self.rows = [(" ".join(dict.fromkeys(shown)), *row) for row, shown in keys.items()]
        self.rows.sort(key=lambda row: SECTIONS.index(row[1]))
        self.width = max(14, widest([row[0] for row in self.rows]))

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
        """The keys whose line holds what is typed, by section."""
        lines: list[str] = []
        section = ""
        for keys, at, text, name in self.rows:
            line = f"{right(keys, self.width)}  {text}"
            if typed.casefold() not in f"{line} {name}".casefold():
                continue
            if at != section:
                lines += ["", at] if lines else [at]
                section = at
            lines.append(line)
        self.query_one("#keys", Static).update("\n".join(lines) or "No key does that here.")

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)
