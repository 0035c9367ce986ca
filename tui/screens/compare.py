"""Several trials side by side: their curves in one chart, the settings that differ, results and costs."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer

from tui.draw.aligned import right, widest
from tui.draw.chart import STYLES
from tui.draw.curves import overlay_figure
from tui.draw.facts import differences
from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot
from tui.screens.curves import CurvesScreen
from tui.widgets.chart import Chart
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

MOST = len(STYLES)  # trials at a time, one style each


class CompareScreen(CurvesScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "close"),
        ("axis", "effort"),
        ("metric", "quantity"),
        ("smooth", "smooth"),
        hidden=(
            ("down", "scroll(1)"),
            ("up", "scroll(-1)"),
            ("left", "sideways(-1)"),
            ("right", "sideways(1)"),
        ),
    )

    def __init__(self, keys: tuple[Key, ...]) -> None:
        super().__init__()
        self.left_out = max(0, len(keys) - MOST)
        self.followed = keys[:MOST]

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Chart(id="overlay")
        yield Static(id="axis-note", markup=False)
        with VerticalScroll(id="differences", can_focus=False):
            yield Static(id="text-differences", markup=False)
        yield Footer()

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Compare", snapshot, session.problem, session.readonly)
        runs = [run for key in self.followed if (run := snapshot.find(key))]
        shown = [details.get(run.key, Detail()) for run in runs]
        wanted = (runs, shown, self.effort, self.quantity, self.smoothing)
        if wanted == self._shown:
            return
        self._shown = wanted
        several = len({run.row.study for run in runs}) > 1
        names = [f"{run.row.study}/{run.row.number:04d}" if several else f"{run.row.number:04d}" for run in runs]
        figure = overlay_figure(runs, shown, names, self.quantity, self.effort, self.smoothing)
        self.query_one(Chart).show(figure.series, figure.x, figure.y)
        note = f"x {self.effort} · y {self.quantity} · smoothing {self.smoothing:g}"
        if self.left_out:
            note += f" · {self.left_out} more marked runs are left out"
        self.query_one("#axis-note", Static).update(" · ".join((note, *figure.notes)))
        rows = [("", names), *differences(runs)]
        widths = [widest([values[i] for _, values in rows]) for i in range(len(runs))]
        first = widest([name for name, _ in rows])
        lines = ["  ".join((right(name, first), *map(right, values, widths))) for name, values in rows]
        body = self.query_one("#text-differences", Static)
        body.styles.width = widest(lines) + 2
        body.update(Text("\n".join(lines) if runs else "None of these trials is there any more.", no_wrap=True))

    def action_scroll(self, by: int) -> None:
        self.query_one("#differences").scroll_relative(y=2 * by, animate=False)

    def action_sideways(self, by: int) -> None:
        self.query_one("#differences").scroll_relative(x=8 * by, animate=False)
