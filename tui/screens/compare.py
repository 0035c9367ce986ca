"""Several trials side by side: the settings that differ, results and costs, and their curves in one chart."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer

from suite.ranking.leaderboard import COLUMNS
from tui.draw.aligned import shortened
from tui.draw.curves import overlay_figure
from tui.draw.facts import differences
from tui.draw.figures import look_of
from tui.draw.side_by_side import side_by_side
from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.snapshot import Key, Run, Snapshot
from tui.screens.curves import CurvesScreen
from tui.widgets.chart import Chart
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

MOST = 16  # trials at a time: the complete log of each is read


class CompareScreen(CurvesScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "close"),
        ("axis", "effort"),
        ("metric", "quantity"),
        ("smooth", "smooth"),
        hidden=(
            ("down", "scroll(1)"),
            ("up", "scroll(-1)"),
            ("left", "sideways(-1)", "Trials to the left"),
            ("right", "sideways(1)", "Trials to the right"),
        ),
    )

    def __init__(self, keys: tuple[Key, ...]) -> None:
        super().__init__()
        self.left_out = max(0, len(keys) - MOST)
        self.followed = keys[:MOST]
        self.first = 0  # index of the first trial in the table
        self._fitting = 1  # number of trials that the table shows

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with VerticalScroll(id="differences", can_focus=False):
            yield Static(id="text-differences", markup=False)
        yield Chart(id="overlay")
        yield Static(id="axis-note", markup=False)
        yield Footer()

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Compare", snapshot, session.problem, session.readonly)
        runs = [run for key in self.followed if (run := snapshot.find(key))]
        shown = [details.get(run.key, Detail()) for run in runs]
        axes = (self.effort, self.quantity, self.smoothing, self.linear, self.window)
        wanted = (runs, shown, axes, self.first, self.size)
        if wanted == self._shown:
            return
        self._shown = wanted
        several = len({run.row.study for run in runs}) > 1
        names = [
            f"{shortened(run.row.study, 12)}/{run.row.number:04d}" if several else f"{run.row.number:04d}"
            for run in runs
        ]
        self._show_table(runs, names)
        figure = overlay_figure(runs, shown, names, self.quantity, self.effort, self.smoothing, self.linear)
        self.query_one(Chart).show_figure(figure, self.window)
        self.query_one("#axis-note", Static).update(" · ".join((*self._words(len(runs)), *figure.notes)))

    def _show_table(self, runs: list[Run], names: list[str]) -> None:
        body = self.query_one("#text-differences", Static)
        if not runs:
            body.update("None of these trials is there any more.")
            return
        self.first = min(self.first, len(runs) - 1)
        marked = [f"{look_of(i)[1]} {name}" for i, name in enumerate(names)]
        facts = sorted(differences(runs), key=lambda fact: fact[0] != COLUMNS["accuracy"].title)  # the result first
        rows = [("", marked), *facts]
        lines, self._fitting = side_by_side(rows, self.first, max(20, self.size.width - 4))
        body.update(Text("\n".join(lines), no_wrap=True))

    def _words(self, count: int) -> list[str]:
        words = []
        if self._fitting < count:
            words.append(f"trials {self.first + 1} to {self.first + self._fitting} of {count}: ← → show others")
        if self.left_out:
            words.append(f"{self.left_out} more marked trials are left out, beyond {MOST}")
        return [*words, f"x {self.effort} · y {self.quantity} · smoothing {self.smoothing:g}"]

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    def action_scroll(self, by: int) -> None:
        self.query_one("#differences").scroll_relative(y=2 * by, animate=False)

    def action_sideways(self, by: int) -> None:
        self.first = max(0, min(self.first + by, len(self.followed) - self._fitting))
        self.redraw()
