"""The leaderboard, the first screen: all trials, live, in the order of a column."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Footer, Input

from tui.draw.cells import title
from tui.draw.summary import summary
from tui.keys import bindings
from tui.model.board import Memo, arrange, known_columns
from tui.model.detail import Detail
from tui.model.filters import FilterError, Subject
from tui.model.jobs import jobs
from tui.model.replay import Replay
from tui.model.snapshot import Key, Snapshot
from tui.model.view import UNSORTABLE, View
from tui.saved_views import load_views, save_view
from tui.screens.base import LiveScreen
from tui.screens.columns import ColumnsScreen
from tui.screens.confirm import ChooseScreen, PromptScreen
from tui.widgets.budget import Budget
from tui.widgets.filter_field import FilterField
from tui.widgets.jobs import Jobs
from tui.widgets.preview import Preview
from tui.widgets.run_table import RunTable
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine
from tui.work import commands


class LeaderboardScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("open", "open"),  # eight of them have room in 80 cells
        ("filter", "filter"),
        ("launch", "launch"),
        ("stop", "stop", "Stop"),
        ("mark", "mark", "Mark"),
        ("compare", "compare"),
        ("export", "export"),
        ("cost", "cost"),
        ("sort", "sort"),
        ("columns", "columns"),
        hidden=(
            ("back", "clear_filter", "End the replay, the filter, the choice of a study"),
            ("sort-before", "shift_sort(-1)"),
            ("sort-behind", "shift_sort(1)"),
            ("reverse", "reverse"),
            ("top", "top"),
            ("group", "group"),
            ("fold", "fold"),
            ("study", "study"),
            ("unmark-all", "unmark_all"),
            ("pin", "pin"),
            ("preview", "preview"),
            ("show-command", "show_command"),
            ("draw", "draw"),
            ("clone", "clone"),
            ("resume", "resume"),
            ("final", "final"),
            ("jobs-log", "jobs_log"),
            ("note", "note"),
            ("archive", "archive"),
            ("delete", "delete"),
            ("replay", "replay"),
            ("previous", "wind(-5)", "Replay: back"),
            ("next", "wind(5)", "Replay: forward"),
            ("views", "views"),
            ("save-view", "save_view"),
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[object, ...] = ()  # all that the table depends on, as it was last drawn
        self._replay = Replay()
        self._memo = Memo()
        self._timer: Timer | None = None  # advances the replay

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield FilterField(id="filter")
        yield Static(id="notice", markup=False)
        with Horizontal():
            yield RunTable(id="table")
            yield Preview(id="preview")
        yield Jobs()
        yield Budget(id="budget")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one(RunTable).focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.table.go_to(self.session.focus_key)  # another screen may have moved it

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    # --- showing ---

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Board", snapshot, session.problem, session.readonly)
        self.query_one(Budget).show(snapshot, session.view.study, session.clock())
        shown = [view.name for view in snapshot.studies if session.view.study in (None, view.name)]
        self.query_one(Jobs).show(jobs(snapshot, session.launching.tasks, shown))
        state = (
            snapshot.version,
            session.view,
            frozenset(session.marked),
            frozenset(session.pinned),
            self._replay.percent,
        )
        if state != self._shown:
            self._shown = state
            self._update_table(snapshot)
        self._update_preview()

    def _update_table(self, snapshot: Snapshot) -> None:
        session, view = self.session, self.session.view
        problem, held = None, {"marked": session.marked, "pinned": session.pinned}
        try:
            session.board = arrange(self._replay.runs(snapshot.runs), view, **held, memo=self._memo)
        except FilterError as error:
            problem = str(error)  # the board of the last valid filter stays
        none = "No trial passes the filter; escape clears it." if view.filter else "No trial yet."
        empty = snapshot.problem or none
        if snapshot.problem and not session.readonly:
            empty = f"Press n to launch a sweep. {empty}"
        shown = view.fitted(len(snapshot.studies), session.board.known(view.columns))
        self.table.show(session.board, shown, **held, empty=empty, loading=snapshot.loading > 0)
        notice = problem or summary(session.board, view, len(session.marked), self._replay.percent)
        self.query_one("#notice", Static).update(notice)

    def _update_preview(self) -> None:
        pane = self.query_one(Preview)
        if pane.display:
            pane.show(self.table.current)

    def set_view(self, view: View) -> None:
        self.session.view = view
        self.session.refresh_screen()

    def change_view(self, **fields: object) -> None:
        self.set_view(self.session.view.changed(**fields))

    # --- filter ---

    def action_filter(self) -> None:
        field = self.query_one(FilterField)
        field.know(Subject(run.row, run.trial.dataset) for run in self.session.snapshot.runs)
        field.display = True
        field.value = self.session.view.filter
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.change_view(filter=event.value)

    def on_input_submitted(self) -> None:
        self.query_one("#filter").display = False
        self.table.focus()

    def action_clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        if self._replay.percent is not None:
            self.action_replay()
        self.change_view(filter="", study=self.session.view.study if self.session.view.filter else None)
        self.table.focus()

    # --- order and columns ---

    def action_sort(self) -> None:
        keys = [key for key in known_columns(self.session.snapshot.runs) if key not in UNSORTABLE]

        def chosen(key: str | None) -> None:
            if key:
                self.change_view(sort=key, reverse=False)

        options = [(key, title(key) or key) for key in keys]
        self.app.push_screen(ChooseScreen("Sort by", options, self.session.view.sort), chosen)

    def action_shift_sort(self, by: int) -> None:
        drawn = self.table.view.sorted_by_neighbour(by)  # in the order in which the columns are drawn
        self.change_view(sort=drawn.sort, reverse=False)

    def action_reverse(self) -> None:
        self.change_view(reverse=not self.session.view.reverse)

    def on_run_table_sorted(self, message: RunTable.Sorted) -> None:
        self.set_view(self.session.view.sorted_by_heading(message.column))

    def action_columns(self) -> None:
        def chosen(columns: tuple[str, ...] | None) -> None:
            if columns:
                self.change_view(columns=columns)

        known = known_columns(self.session.snapshot.runs)
        self.app.push_screen(ColumnsScreen(self.session.view.columns, known), chosen)

    def action_top(self) -> None:
        self.set_view(self.session.view.next_top())

    def action_group(self) -> None:
        self.set_view(self.session.view.toggled_grouping())

    def action_fold(self) -> None:
        self.change_view(folded=not self.session.view.folded)

    def action_cost(self) -> None:
        self.set_view(self.session.view.next_cost())

    def action_study(self) -> None:
        names = [("", "all studies"), *((v.name, v.name) for v in self.session.snapshot.studies)]

        def chosen(name: str | None) -> None:
            if name is not None:
                self.change_view(study=name or None)

        self.app.push_screen(ChooseScreen("Show", names, self.session.view.study or ""), chosen)

    # --- replay ---

    def action_replay(self) -> None:
        """Replay from the first start to now in twenty seconds, or return to live."""
        self._stop_timer()
        self._replay.toggle()
        if self._replay.percent is not None:
            self._timer = self.set_interval(0.2, lambda: self._wind(1))
        self.session.refresh_screen()

    def action_wind(self, by: int) -> None:
        self._stop_timer()
        self._wind(by)

    def _wind(self, by: int) -> None:
        """Move the replay by so many percentage points."""
        self._replay.move(by)
        if self._replay.percent is None:
            self._stop_timer()
        self.session.refresh_screen()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    # --- marks ---

    def _keys(self) -> list[Key]:
        """Keys of the runs on the line under the cursor."""
        return [run.key for run in self.table.current.runs] if self.table.current else []

    def action_mark(self) -> None:
        self._toggle(self.session.marked)
        self.table.action_move(1)

    def action_pin(self) -> None:
        self._toggle(self.session.pinned)

    def _toggle(self, chosen: set[Key]) -> None:
        keys = self._keys()
        if chosen.issuperset(keys):
            chosen.difference_update(keys)
        else:
            chosen.update(keys)
        self.session.refresh_screen()

    def action_unmark_all(self) -> None:
        self.session.marked.clear()
        self.session.refresh_screen()

    # --- to other screens ---

    def on_run_table_moved(self, message: RunTable.Moved) -> None:
        self.session.focus_key = message.key
        self._update_preview()

    def on_run_table_opened(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        if key := self.table.current_key:
            from tui.screens.run import RunScreen  # imported when it is first shown, as the main screens are

            self.app.push_screen(RunScreen(key))

    def action_compare(self) -> None:
        shown = self.session.board.keys
        keys = [key for key in shown if key in self.session.marked] or shown[:3]
        if keys:
            from tui.screens.compare import CompareScreen

            self.app.push_screen(CompareScreen(tuple(keys)))
        else:
            self.notify("Nothing to compare: mark trials with space.")

    def action_preview(self) -> None:
        pane = self.query_one(Preview)
        pane.display = not pane.display
        self.call_after_refresh(self._update_preview)

    def action_draw(self) -> None:
        if key := self.table.current_key:
            self.session.focus_key = key
            self.session.action_mode("pad")

    # --- notes, archive, trash ---

    def action_note(self) -> None:
        if key := self.table.current_key:
            self.session.upkeep.ask_note(*key)

    def action_archive(self) -> None:
        if keys := self._keys():
            self.session.upkeep.archive(keys[0][0], [trial for _, trial in keys])

    def action_delete(self) -> None:
        if key := self.table.current_key:
            self.session.upkeep.ask_delete(*key)

    # --- commands, after a dialogue ---

    def _study(self) -> str | None:
        key = self.table.current_key
        name = key[0] if key else self.session.view.study
        if name is None:
            self.notify("No study here.")
        return name

    def action_launch(self) -> None:
        self.session.launching.ask_launch(None)

    def action_clone(self) -> None:
        if study := self._study():
            self.session.launching.ask_launch(study)

    def action_stop(self) -> None:
        if study := self._study():
            key = self.table.current_key
            self.session.launching.ask_stop(study, key[1] if key else None)

    def action_resume(self) -> None:
        if study := self._study():
            self.session.launching.ask_resume(study)

    def action_final(self) -> None:
        if study := self._study():
            self.session.launching.ask_final(study)

    def action_jobs_log(self) -> None:
        self.session.launching.open_log()

    def action_export(self) -> None:
        if key := self.table.current_key:
            self.session.launching.ask_export(key)

    def action_show_command(self) -> None:
        if key := self.table.current_key:
            command = commands.typed(commands.export_words(*key, Path(f"{key[0]}-{key[1]}"), self.session.results))
            self.app.copy_to_clipboard(command)
            self.notify(command, title="Copied", timeout=10, markup=False)

    def action_views(self) -> None:
        views = load_views()
        if not views:
            self.notify("No saved views yet: V saves this one.")
            return

        def chosen(name: str | None) -> None:
            if name:
                self.set_view(views[name])

        self.app.push_screen(ChooseScreen("Saved views", [(name, name) for name in views]), chosen)

    def action_save_view(self) -> None:
        def named(name: str | None) -> None:
            if not name:
                return
            try:
                save_view(name.strip(), self.session.view)
            except OSError as error:
                self.notify(f"Not saved: {error.strerror or error}", severity="error", markup=False)
            else:
                self.notify(f"View '{name.strip()}' saved.", markup=False)

        check = lambda name: None if name.strip() else "give it a name"  # noqa: E731
        self.app.push_screen(PromptScreen("Save this view as", check=check), named)
