"""Charts over all trials that pass the leaderboard's filter."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Footer

from suite.ranking.leaderboard import ValidationSet, name_of
from tui.draw.axes import WHOLE, Axis
from tui.draw.cells import title
from tui.draw.chart import Figure, Spot
from tui.draw.figures import (
    all_arms,
    edf_figure,
    history_figure,
    intermediate_figure,
    pareto_figure,
    timeline_figure,
    tuned_keys,
)
from tui.draw.importance import importance_lines
from tui.draw.parameters import contour_figure, pairs, parallel_figure, rank_figure, slice_figure
from tui.draw.selection import find, highlighted, neighbour, share_of, spots
from tui.draw.spots import about
from tui.keys import bindings
from tui.model.board import arrange
from tui.model.detail import Detail
from tui.model.filters import FilterError
from tui.model.sets import by_set, chosen_set, filter_of
from tui.model.snapshot import Key, Run, Snapshot
from tui.screens.charts import ChartScreen
from tui.screens.run import RunScreen
from tui.widgets.chart import Chart
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

FIGURES = ("pareto", "history", "curves", "slice", "rank", "contour", "importance", "parallel", "edf", "timeline")
NOTHING = Figure((), Axis(), Axis())
Groups = dict[ValidationSet, list[Run]]
OF_PARAMETERS = ("slice", "rank", "contour")


class PlotsScreen(ChartScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("next", "figure(1)", "Next plot"),
        ("open", "open", "Open trial"),
        ("cost", "cost(1)"),
        ("parameter", "parameter(1)"),
        hidden=(
            ("previous", "figure(-1)", "Previous plot"),
            ("left", "point(-1, 0)", "Point to the left"),
            ("right", "point(1, 0)", "Point to the right"),
            ("up", "point(0, 1)", "Point above"),
            ("down", "point(0, -1)", "Point below"),
            ("back", "app.mode('board')"),
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.figure = FIGURES[0]
        self.parameter = 0  # of the hyperparameters, or of their pairs
        self._groups: tuple[object, Groups] = ((), {})  # the runs that pass the filter, and what they depend on
        self._drawn: tuple[object, Figure, str] = ((), NOTHING, "")  # the figure and its first note likewise
        self._spots: tuple[object, list[list[Spot]]] = ((), [])  # its points likewise
        self._pair: tuple[str, str] | None = None  # of hyperparameters, which rank and contour show
        self._at: Spot | None = None  # the point under the cursor

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Static(id="figures", markup=False)
        yield Chart(id="figure")
        yield Static(id="lines", markup=False)
        yield Static(id="point", markup=False)
        yield Static(id="notes", markup=False)
        yield Footer()

    # --- showing ---

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Plots", snapshot, session.problem, session.readonly)
        moving = snapshot.time if self.figure == "timeline" and snapshot.counts["running"] else 0
        of_runs = (snapshot.version, session.view, frozenset(session.marked), frozenset(session.pinned))
        of_figure = (*of_runs, self.figure, self.parameter, self.linear, moving)
        wanted = (of_figure, session.focus_key, self._at, self.window, self.size)
        if wanted == self._shown:
            return
        self._shown = wanted
        if self._groups[0] != of_runs:
            self._groups = (of_runs, by_set(self._arranged(snapshot)))
        self.query_one("#figures", Static).update(self._names())
        self._show(snapshot, of_figure)

    def _arranged(self, snapshot: Snapshot) -> list[Run]:
        """The runs that pass the filter; where seeds are grouped, the first of each group with the group's means."""
        view = self.session.view.model_copy(update={"top": 0, "folded": False})
        try:
            board = arrange(snapshot.runs, view, marked=self.session.marked, pinned=self.session.pinned)
        except FilterError:
            return snapshot.runs
        if view.grouped and self.figure not in ("curves", "timeline"):
            return [replace(line.runs[0], row=line.row) for line in board.lines]
        return [run for line in board.lines for run in line.runs]

    def _names(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for name in FIGURES:
            style = Style(bold=name == self.figure, meta={"@click": f"screen.choose('{name}')"})
            line.append(name.upper() if name == self.figure else name, style)
            line.append("  " if self.size.width >= 90 else " ")
        return line

    def _show(self, snapshot: Snapshot, of_figure: tuple[object, ...]) -> None:
        groups = self._groups[1]
        chosen = chosen_set(groups, self.session.focus_key)
        runs = [run for group in groups.values() for run in group]
        within = groups[chosen] if chosen and self.figure != "timeline" else runs
        state = (of_figure, chosen)
        if self._drawn[0] != state:
            first = (
                one_of_several(chosen, groups, runs) if chosen and len(within) < len(runs) else f"{len(runs)} trials"
            )
            figure = NOTHING if self.figure == "importance" else self._figure(within, snapshot)
            self._drawn = (state, figure if within else replace(figure, empty=self._advice(snapshot)), first)
        _, figure, first = self._drawn
        self._at = find(figure, self.session.focus_key, self._at.x if self._at else None, self.window)
        chart, lines, point = self.query_one(Chart), self.query_one("#lines", Static), self.query_one("#point", Static)
        text = self.figure == "importance" and bool(within)
        chart.display, lines.display, point.display = not text, text, not text
        if text:
            lines.update("\n".join(importance_lines(within, self.size.width)))
        else:
            chart.show_figure(highlighted(figure, self.session.focus_key), self.window, self._at)
            point.update(about(figure, self._at, snapshot.find(self.session.focus_key)))
        self._note([first, *self._words(within)], figure.notes)

    def _note(self, words: list[str], notes: tuple[str, ...]) -> None:
        hint = "arrows choose, + - zoom"
        if len(" · ".join((*words, hint))) < self.size.width - 2:
            words.append(hint)
        room = max(1, self.size.height // 4)
        if len(notes) > room:
            notes = (*notes[: room - 1], f"… and {len(notes) - room + 1} more steps")
        self.query_one("#notes", Static).update("\n".join((" · ".join(words), *notes)))

    def _advice(self, snapshot: Snapshot) -> str:
        """What to do where there is no trial to draw."""
        if snapshot.problem:
            return f"{snapshot.problem} 1 shows the board, where n launches a sweep."
        if self.session.view.filter:
            return f"No trial passes the filter {self.session.view.filter}. 1 shows the board, where esc clears it."
        return "No trial yet. 1 shows the board, where n launches a sweep."

    def _words(self, runs: list[Run]) -> list[str]:
        words = [f"filter {self.session.view.filter}"] if self.session.view.filter else []
        words += ["seeds grouped"] if self.session.view.grouped else []
        if self.figure == "slice" and tuned_keys(runs):
            words.append(f"parameter {self._parameter(runs)}")
        if self.figure in ("rank", "contour") and self._pair is not None:
            words.append(f"parameters {title(self._pair[0])} and {title(self._pair[1])}")
        if self.window != WHOLE:
            words.append(f"{100 * (self.window.high - self.window.low):.3g}% of the x axis; 0 shows all")
        return words

    def _figure(self, runs: list[Run], snapshot: Snapshot) -> Figure:
        arms = all_arms(snapshot.runs)
        match self.figure:
            case "pareto":
                return pareto_figure(runs, self.session.view.cost, arms=arms, linear=self.linear)
            case "history":
                return history_figure(runs, arms=arms, linear=self.linear)
            case "curves":
                return intermediate_figure(runs, arms=arms, linear=self.linear, grouped=self.session.view.grouped)
            case "slice":
                return slice_figure(runs, self._parameter(runs), arms=arms, linear=self.linear)
            case "rank":
                self._pair = self._chosen_pair(runs)
                return rank_figure(runs, self._pair)
            case "contour":
                self._pair = self._chosen_pair(runs)
                return contour_figure(runs, self._pair, arms=arms)
            case "edf":
                return edf_figure(runs, arms=arms, linear=self.linear)
            case "parallel":
                return parallel_figure(runs)
            case _:
                return timeline_figure(runs, self.session.clock())

    def _parameter(self, runs: list[Run]) -> str:
        keys = tuned_keys(runs) or ["accuracy"]
        return keys[self.parameter % len(keys)]

    def _chosen_pair(self, runs: list[Run]) -> tuple[str, str] | None:
        known = pairs(runs)
        return known[self.parameter % len(known)] if known else None

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    # --- keys ---

    def centre(self) -> float | None:
        return share_of(self._drawn[1], self._at.x) if self._at else None

    def action_choose(self, figure: str) -> None:
        self.figure = figure
        self.window, self._at, self._groups = WHOLE, None, ((), {})
        self.redraw()

    def action_figure(self, by: int) -> None:
        self.action_choose(FIGURES[(FIGURES.index(self.figure) + by) % len(FIGURES)])

    def action_point(self, dx: int, dy: int) -> None:
        """Move the cursor to the next point in a direction; the run under it is that of all screens."""
        if self.figure == "importance":
            return
        state = (self._drawn[0], self.window)
        if self._spots[0] != state:
            self._spots = (state, spots(self._drawn[1], self.window))
        found = neighbour(self._spots[1], self._at, dx, dy)
        if found is not None:
            self._at, self.session.focus_key = found, found.key
            self.redraw()

    def action_open(self) -> None:
        key = self.session.focus_key
        if key is not None and self.session.snapshot.find(key):
            self.app.push_screen(RunScreen(key))
        else:
            self.notify("Choose a point with the arrow keys first.")

    def action_cost(self, by: int) -> None:
        self.session.view = self.session.view.next_cost(by)
        self.action_choose("pareto")
        self.notify(f"Cost: {title(self.session.view.cost)}", timeout=1)

    def action_parameter(self, by: int) -> None:
        same = self.figure in OF_PARAMETERS
        self.parameter += by if same else 0
        self.action_choose(self.figure if same else "slice")


def one_of_several(chosen: ValidationSet, groups: Groups, runs: list[Run]) -> str:
    """Which of several validation sets is drawn, and a filter for another one."""
    other = next(group for name, group in groups.items() if name != chosen)
    words = filter_of(other, runs)
    way = f"filter {words}" if words else "the board's cursor on one of its trials"
    return (
        f"{len(groups[chosen])} of {len(runs)} trials, those on {name_of(chosen)};"
        f" {way} shows {name_of(other[0].row.validation)}"
    )
