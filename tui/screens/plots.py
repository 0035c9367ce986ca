"""Charts over all trials that pass the leaderboard's filter."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Footer

from tui.draw.cells import title
from tui.draw.figures import (
    Figure,
    all_arms,
    history_figure,
    importance_lines,
    intermediate_figure,
    parallel_figure,
    pareto_figure,
    slice_figure,
    timeline_figure,
    tuned_keys,
)
from tui.keys import bindings
from tui.model.board import arrange
from tui.model.detail import Detail
from tui.model.filters import FilterError
from tui.model.snapshot import Key, Run, Snapshot
from tui.screens.base import LiveScreen
from tui.widgets.chart import Chart
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

FIGURES = ("pareto", "history", "intermediate", "slice", "importance", "parallel", "timeline")


class PlotsScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("next", "figure(1)", "Next plot"),
        ("previous", "figure(-1)", "Previous plot"),
        ("cost", "cost(1)"),
        ("parameter", "parameter(1)"),
        ("linear", "linear"),
        hidden=(
            ("right", "figure(1)", "Next plot"),
            ("left", "figure(-1)", "Previous plot"),
            ("back", "app.mode('board')"),
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.figure = FIGURES[0]
        self.parameter = 0
        self.linear = False  # accuracies, and not their errors on a logarithmic scale
        self._shown: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Static(id="figures", markup=False)
        yield Chart(id="figure")
        yield Static(id="lines", markup=False)
        yield Static(id="notes", markup=False)
        yield Footer()

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Plots", snapshot, session.problem, session.readonly)
        moving = snapshot.time if self.figure == "timeline" else 0
        wanted = (snapshot.version, session.view, self.figure, self.parameter, self.linear, moving, self.size)
        if wanted == self._shown:
            return
        self._shown = wanted
        runs = self._runs(snapshot)
        tabs = "  ".join(name.upper() if name == self.figure else name for name in FIGURES)
        self.query_one("#figures", Static).update(tabs)
        self._show(runs, snapshot)

    def _runs(self, snapshot: Snapshot) -> list[Run]:
        view = self.session.view.model_copy(update={"top": 0, "folded": False})
        try:
            board = arrange(snapshot.runs, view, marked=self.session.marked, pinned=self.session.pinned)
        except FilterError:
            return snapshot.runs
        return [run for line in board.lines for run in line.runs]

    def _show(self, runs: list[Run], snapshot: Snapshot) -> None:
        words = [f"{len(runs)} trials"]
        if self.session.view.filter:
            words.append(f"filter {self.session.view.filter}")
        splits = len({run.row.validation for run in runs})
        if splits > 1:
            words.append(f"{splits} validation splits: compare within one (filter data:NAME)")
        chart, lines = self.query_one(Chart), self.query_one("#lines", Static)
        text = self.figure == "importance"
        chart.display, lines.display = not text, text
        notes: tuple[str, ...] = ()
        if text:
            lines.update("\n".join(importance_lines(runs, self.size.width)))
        else:
            figure = self._figure(runs, snapshot)
            chart.show(figure.series, figure.x, figure.y)
            notes = figure.notes
        if self.figure == "slice" and tuned_keys(runs):
            words.append(f"parameter {self._parameter(runs)}")
        room = max(1, self.size.height // 3)
        if len(notes) > room:
            notes = (*notes[: room - 1], f"… and {len(notes) - room + 1} more steps")
        self.query_one("#notes", Static).update("\n".join((" · ".join(words), *notes)))

    def _figure(self, runs: list[Run], snapshot: Snapshot) -> Figure:
        drawn = {"arms": all_arms(snapshot.runs), "linear": self.linear}
        match self.figure:
            case "pareto":
                return pareto_figure(runs, self.session.view.cost, **drawn)
            case "history":
                return history_figure(runs, **drawn)
            case "intermediate":
                return intermediate_figure(runs, **drawn)
            case "slice":
                return slice_figure(runs, self._parameter(runs), **drawn)
            case "parallel":
                return parallel_figure(runs)
            case _:
                return timeline_figure(runs, self.session.clock())

    def _parameter(self, runs: list[Run]) -> str:
        keys = tuned_keys(runs) or ["accuracy"]
        return keys[self.parameter % len(keys)]

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    def action_figure(self, by: int) -> None:
        self.figure = FIGURES[(FIGURES.index(self.figure) + by) % len(FIGURES)]
        self.redraw()

    def action_cost(self, by: int) -> None:
        self.session.view = self.session.view.next_cost(by)
        self.figure = "pareto"
        self.redraw()
        self.notify(f"Cost: {title(self.session.view.cost)}", timeout=1)

    def action_linear(self) -> None:
        self.linear = not self.linear
        self.redraw()

    def action_parameter(self, by: int) -> None:
        self.parameter += by if self.figure == "slice" else 0
        self.figure = "slice"
        self.redraw()
