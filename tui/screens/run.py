"""One trial: curves, configuration, cost, log, digits, lineage and explanations."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, VerticalScroll
from textual.scroll_view import ScrollView
from textual.widgets import Footer, TabbedContent, TabPane

from tui.draw import facts
from tui.draw.aligned import right, widest
from tui.draw.cells import GLYPHS
from tui.draw.chart import Figure
from tui.draw.curves import QUANTITIES, TOGETHER, effort, run_figure
from tui.draw.explanations import explained
from tui.draw.images import confusion_heatmap, worst_mistakes
from tui.draw.selection import along, share_of, values_at
from tui.draw.spots import at_point
from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.snapshot import Key, Run, Snapshot
from tui.screens.curves import CurvesScreen
from tui.widgets.chart import Chart
from tui.widgets.log_view import LogView
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

TABS = ("curves", "mistakes", "config", "cost", "log", "lineage", "explained")


class RunScreen(CurvesScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("back", "close"),
        ("next", "tab(1)", "Next tab"),
        ("axis", "effort"),
        ("metric", "quantity"),
        ("export", "export"),
        ("filter", "search", "Search the log"),
        ("stop", "stop", "Stop"),
        hidden=(
            ("previous", "tab(-1)", "Previous tab"),
            ("right", "across(1)", "Crosshair to the right, or next tab"),
            ("left", "across(-1)", "Crosshair to the left, or previous tab"),
            ("smooth", "smooth"),
            ("next-run", "neighbour(1)"),
            ("previous-run", "neighbour(-1)"),
            ("down", "scroll(1)"),
            ("up", "scroll(-1)"),
            ("page-down", "page(1)"),
            ("page-up", "page(-1)"),
            ("first", "edge(-1)", "Top"),
            ("last", "edge(1)", "Bottom"),
            ("mark", "mark"),
            ("draw", "draw"),
            ("explain", "explain"),
            ("note", "note"),
            ("archive", "archive"),
            ("delete", "delete"),
        ),
    )

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key
        self.followed = (key,)

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Static(id="life", markup=False)
        run = self.session.snapshot.find(self.key)
        first = "log" if run is not None and run.row.state == "failed" else TABS[0]
        with TabbedContent(id="tabs", initial=first):
            with TabPane("Curves", id="curves"), Grid(id="charts"):
                for quantity in QUANTITIES:
                    yield Chart(id=f"chart-{quantity}")
            for name in TABS[1:]:
                if name == "log":
                    with TabPane("Log", id="log"):
                        yield LogView()
                    continue
                with TabPane(name.capitalize(), id=name), VerticalScroll(can_focus=False):
                    yield Static(id=f"text-{name}", markup=False)
        yield Static(id="axis-note", markup=False)
        yield Footer()

    @property
    def tab(self) -> str:
        return self.query_one(TabbedContent).active or TABS[0]

    # --- showing ---

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        run = snapshot.find(self.key)
        study, trial = self.key
        self.query_one(StatusLine).show(f"{study}/{trial}", snapshot, session.problem, session.readonly)
        life = self.query_one("#life", Static)
        if run is None:
            life.update("This trial is not there (any more).")
            return
        life.update(f"{GLYPHS.get(run.row.state, '?')} {facts.life(run, session.clock())}")
        detail = details.get(self.key)
        axes = (self.effort, self.quantity, self.smoothing, self.linear, self.window, self.at)
        wanted = (run, detail, self.tab, axes, self.size)
        if wanted != self._shown:
            self._shown = wanted
            self._show(run, detail or Detail(), snapshot)

    def _show(self, run: Run, detail: Detail, snapshot: Snapshot) -> None:
        tab = self.tab
        self.query_one("#axis-note", Static).display = tab == "curves"
        if tab == "curves":
            self._curves(run, detail)
            return
        if tab == "log":
            console = detail.console or [(1, "No console.log.")]
            self.query_one(LogView).show([("events", detail.log), ("console.log", console)])
            return
        pane = self.query_one(f"#text-{tab}", Static)
        if tab == "config":
            pane.update(table(facts.configuration(run)) + "\n\n* chosen by the search")
        elif tab == "cost":
            pane.update(table(facts.costs(run)))
        elif tab == "mistakes":
            pane.update(self._mistakes(detail))
        elif tab == "explained":
            pane.update(self._explained(run, detail))
        else:
            pane.update("\n".join(facts.lineage(run, snapshot)))

    def _curves(self, run: Run, detail: Detail) -> None:
        many = self.size.width >= 120 and self.size.height >= 36 and self.quantity in TOGETHER
        self.query_one("#charts").set_class(many, "-many")
        notes: tuple[str, ...] = ()
        for quantity in QUANTITIES:
            chart = self.query_one(f"#chart-{quantity}", Chart)
            chart.display = quantity in TOGETHER if many else quantity == self.quantity
            if chart.display:
                figure = self._figure(run, detail, quantity)
                values = values_at(figure, self.at) if self.at is not None else []
                chart.show_figure(figure, self.window, values[-1][1] if values else None)
                notes += tuple(at_point(figure, quantity, values)) + figure.notes
        quantity = "all" if many else self.quantity
        words = f"x {self.effort} · y {quantity} · smoothing {self.smoothing:g} · ← → values, + - zoom"
        if self.at is not None:
            _, x = effort(run, self.effort)
            words = f"{self.effort} {x.text(self.at)}"
        self.query_one("#axis-note", Static).update(" · ".join((words, *dict.fromkeys(notes))))

    def _figure(self, run: Run, detail: Detail, quantity: str) -> Figure:
        return run_figure(run, detail, quantity, self.effort, self.smoothing, self.linear)

    def _main_figure(self) -> Figure | None:
        """The figure whose points the crosshair goes along."""
        run, detail = self.session.snapshot.find(self.key), self.session.details.get(self.key)
        return self._figure(run, detail, self.quantity) if run and detail else None

    def _mistakes(self, detail: Detail) -> Text:
        validation = detail.validation
        if validation is None:
            return Text("No validation.json: it is written when a trial finishes.")
        width = max(40, self.size.width - 4)
        parts = [Text("The most confident mistakes on validation", style="bold"), *worst_mistakes(validation, width)]
        parts += [Text(""), Text("Confusion (rows: label, columns: prediction)", style="bold")]
        parts += confusion_heatmap(validation, width)
        return Text("\n").join(parts)

    def _explained(self, run: Run, detail: Detail) -> Text:
        found = detail.explanations
        if found is None or run.record is None or found.artifact_sha256 != run.record.artifact_sha256:
            return Text("No explanations.json. W explains the worst mistakes on validation.")
        return Text("\n").join(explained(found, max(40, self.size.width - 4)))

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()
        self.redraw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys of the curves are there on their tab only."""
        if action in ("effort", "quantity", "smooth") and self.is_mounted and self.tab != "curves":
            return False
        if action == "search" and self.is_mounted and self.tab != "log":
            return None  # dimmed: the key leads to the log
        return super().check_action(action, parameters)

    def on_resize(self) -> None:
        self.call_after_refresh(self.redraw)

    # --- keys ---

    def action_tab(self, by: int) -> None:
        self.query_one(TabbedContent).active = TABS[(TABS.index(self.tab) + by) % len(TABS)]

    def action_across(self, by: int) -> None:
        """Move the crosshair on the curves by at least a column; elsewhere change the tab."""
        if self.tab != "curves":
            self.action_tab(by)
        elif figure := self._main_figure():
            self.at = along(figure, self.at, by, self.size.width, self.window)
            self.redraw()

    def centre(self) -> float | None:
        figure = self._main_figure() if self.at is not None else None
        return share_of(figure, self.at) if figure and self.at is not None else None

    def action_show_all(self) -> None:
        self.at = None
        super().action_show_all()

    def _pane(self) -> ScrollView | VerticalScroll | None:
        if self.tab == "log":
            return self.query_one(LogView).lines
        return self.query_one(f"#{self.tab}").query(VerticalScroll).first() if self.tab != "curves" else None

    def action_scroll(self, by: int) -> None:
        if pane := self._pane():
            pane.scroll_relative(y=2 * by, animate=False)

    def action_page(self, by: int) -> None:
        if pane := self._pane():
            pane.scroll_relative(y=by * max(1, pane.size.height - 2), animate=False)

    def action_edge(self, end: int) -> None:
        if pane := self._pane():
            pane.scroll_home(animate=False) if end < 0 else pane.scroll_end(animate=False)

    def action_search(self) -> None:
        self.query_one(TabbedContent).active = "log"
        self.query_one(LogView).lines.focus()
        self.call_after_refresh(self.query_one(LogView).search)

    def action_close(self) -> None:
        if self.query_one(LogView).searching:
            self.query_one(LogView).leave()
        else:
            super().action_close()

    def action_neighbour(self, by: int) -> None:
        """Show the run below or above on the leaderboard."""
        keys = self.session.board.keys
        if self.key in keys:
            place = keys.index(self.key) + by
            if 0 <= place < len(keys):
                self.key = self.session.focus_key = keys[place]
                self.followed, self.at = (self.key,), None
                self.session.follow(self.followed)
                self.redraw()

    def action_mark(self) -> None:
        self.session.marked.symmetric_difference_update({self.key})
        self.notify("Marked." if self.key in self.session.marked else "Unmarked.")

    def action_export(self) -> None:
        self.session.launching.ask_export(self.key)

    def action_draw(self) -> None:
        self.session.focus_key = self.key
        self.session.action_mode("pad")

    def action_explain(self) -> None:
        """Explain the worst mistakes, and show the tab where this will appear."""
        self.query_one(TabbedContent).active = "explained"
        self.session.launching.ask_explain(self.key)

    def action_note(self) -> None:
        self.session.upkeep.ask_note(*self.key)

    def action_archive(self) -> None:
        study, trial = self.key
        self.session.upkeep.archive(study, [trial])

    def action_delete(self) -> None:
        self.session.upkeep.ask_delete(*self.key)

    def action_stop(self) -> None:
        self.session.launching.ask_stop(*self.key)


def table(pairs: list[facts.Fact]) -> str:
    """A line for each pair; names are aligned to the right, values to the left."""
    width = widest([name for name, _ in pairs])
    return "\n".join(f"{right(name, width)}  {value}" for name, value in pairs)
