"""The first screen: every trial, live, in order."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Footer, Input, Static

from suite.ranking.leaderboard import COSTS
from tui import commands
from tui.draw.cells import title
from tui.model import replay
from tui.model.board import START, TOPS, View, arrange, known_columns
from tui.model.detail import Detail
from tui.model.filters import FilterError
from tui.model.snapshot import Key, Run, Snapshot
from tui.saved_views import load_views, save_view
from tui.screens.base import LiveScreen
from tui.screens.columns import ColumnsScreen
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ChooseScreen, PromptScreen
from tui.screens.launch import LaunchScreen, form_from
from tui.screens.run import RunScreen
from tui.widgets.budget import Budget
from tui.widgets.preview import Preview
from tui.widgets.run_table import RunTable
from tui.widgets.status_line import StatusLine


class LeaderboardScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "clear_filter", "Clear filter", show=False),
        Binding("s", "sort", "Sort"),
        Binding("less_than_sign,comma", "shift_sort(-1)", "Sort by the column before", show=False),
        Binding("greater_than_sign,full_stop", "shift_sort(1)", "Sort by the column behind", show=False),
        Binding("r", "reverse", "Reverse order", show=False),
        Binding("C", "columns", "Columns"),
        Binding("t", "top", "Top N", show=False),
        Binding("u", "group", "Group seeds", show=False),
        Binding("f", "cost", "Pareto cost"),
        Binding("space", "mark", "Mark"),
        Binding("m", "unmark_all", "Unmark all", show=False),
        Binding("p", "pin", "Pin", show=False),
        Binding("c", "compare", "Compare"),
        Binding("a", "study", "Choose study", show=False),
        Binding("o", "preview", "Preview", show=False),
        Binding("e", "export", "Export"),
        Binding("y", "show_command", "Show the export command", show=False),
        Binding("d", "draw", "Draw digits for this model", show=False),
        Binding("n", "launch", "Launch"),
        Binding("N", "clone", "Clone study with edits", show=False),
        Binding("x", "stop", "Stop study"),
        Binding("R", "resume", "Resume study", show=False),
        Binding("w", "replay", "Replay from the start", show=False),
        Binding("left_square_bracket", "wind(-5)", "Replay: back", show=False),
        Binding("right_square_bracket", "wind(5)", "Replay: forward", show=False),
        Binding("v", "views", "Saved views", show=False),
        Binding("V", "save_view", "Save this view", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[object, ...] = ()
        self._replay: int | None = None  # percent of the way from the first start to the last sign; None: live
        self._player: Timer | None = None

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Input(placeholder="acc>.99 flops<10M arm:head state:running", id="filter", select_on_focus=False)
        yield Static(id="notice", markup=False)
        with Horizontal():
            yield RunTable(id="table")
            yield Preview(id="preview")
        yield Budget(id="budget")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one(RunTable).focus()

    @property
    def table(self) -> RunTable:
        return self.query_one(RunTable)

    # --- showing ---

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        app = self.dashboard
        self.query_one(StatusLine).show("Leaderboard", snapshot, app.problem, app.readonly)
        self.query_one(Budget).show(snapshot, app.view.study)
        wanted = (snapshot.version, app.view, frozenset(app.marked), frozenset(app.pinned), self._replay)
        if wanted != self._shown:
            self._shown = wanted
            self._arrange(snapshot)
        self._preview()

    def _arrange(self, snapshot: Snapshot) -> None:
        app, view = self.dashboard, self.dashboard.view
        problem = None
        try:
            self.dashboard.board = arrange(self._runs(snapshot), view, marked=app.marked, pinned=app.pinned)
        except FilterError as error:
            problem = str(error)  # the lines of the last good filter stay
        empty = snapshot.problem or ("No trial passes the filter." if view.filter else "No trial yet.")
        if snapshot.problem and not app.readonly:
            empty = f"Press n to launch a sweep. {empty}"
        shown = self._with_study(view, snapshot)
        self.table.show(app.board, shown, marked=app.marked, pinned=app.pinned, empty=empty)
        self.query_one("#notice", Static).update(problem or self._notice(view))

    @staticmethod
    def _with_study(view: View, snapshot: Snapshot) -> View:
        """With several studies in sight, the default columns say which is which."""
        if view.columns != START or view.study is not None or len(snapshot.studies) < 2:
            return view
        place = START.index("number") + 1
        return view.model_copy(update={"columns": (*START[:place], "study", *START[place:])})

    def _notice(self, view: View) -> str:
        """What the view leaves out or mixes; counts first."""
        board = self.dashboard.board
        words = [f"replay {self._replay}%"] if self._replay is not None else []
        words += [f"{board.matched} of {board.total}" if board.matched != board.total else f"{board.total} trials"]
        if view.filter:
            words.append(f"filter {view.filter}")
        words.append(f"{'worst' if view.reverse else 'best'} {title(view.sort) or view.sort} first")
        words.append(f"★ Pareto by {title(view.cost)}")
        if view.study:
            words.append(f"study {view.study}")
        if view.top:
            words.append(f"top {view.top}")
        if view.grouped:
            words.append("seeds grouped: mean ± 95 %")
        if self.dashboard.marked:
            words.append(f"{len(self.dashboard.marked)} marked")
        if board.splits > 1:
            words.append(f"{board.splits} validation splits: compare within one (data:NAME)")
        return " · ".join(words)

    def _preview(self) -> None:
        pane = self.query_one(Preview)
        if pane.display:
            pane.show(self.table.current)

    def set_view(self, **changes: object) -> None:
        self.dashboard.view = self.dashboard.view.model_copy(update=changes)
        self.dashboard.show_news()

    # --- filter ---

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.value = self.dashboard.view.filter
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.set_view(filter=event.value)

    def on_input_submitted(self) -> None:
        self.query_one("#filter").display = False
        self.table.focus()

    def action_clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.set_view(filter="")
        self.table.focus()

    # --- order and columns ---

    def action_sort(self) -> None:
        keys = [key for key in known_columns(self.dashboard.snapshot.runs) if key not in ("flag", "rank")]

        def chosen(key: str | None) -> None:
            if key:
                self.set_view(sort=key, reverse=False)

        self.app.push_screen(
            ChooseScreen("Sort by", [(k, title(k) or k) for k in keys], self.dashboard.view.sort), chosen
        )

    def action_shift_sort(self, by: int) -> None:
        view = self.dashboard.view
        keys = [key for key in view.columns if key not in ("flag", "rank")] or ["accuracy"]
        place = (keys.index(view.sort) + by) % len(keys) if view.sort in keys else 0
        self.set_view(sort=keys[place], reverse=False)

    def action_reverse(self) -> None:
        self.set_view(reverse=not self.dashboard.view.reverse)

    def on_run_table_sorted(self, message: RunTable.Sorted) -> None:
        view = self.dashboard.view
        if message.column not in ("flag", "rank"):
            self.set_view(sort=message.column, reverse=message.column == view.sort and not view.reverse)

    def action_columns(self) -> None:
        def chosen(columns: tuple[str, ...] | None) -> None:
            if columns:
                self.set_view(columns=columns)

        known = known_columns(self.dashboard.snapshot.runs)
        self.app.push_screen(ColumnsScreen(self.dashboard.view.columns, known), chosen)

    def action_top(self) -> None:
        top = self.dashboard.view.top
        self.set_view(top=TOPS[(TOPS.index(top) + 1) % len(TOPS)] if top in TOPS else 0)

    def action_group(self) -> None:
        grouped = not self.dashboard.view.grouped
        columns = self.dashboard.view.columns
        if grouped and "seeds" not in columns:
            place = columns.index("accuracy") + 1 if "accuracy" in columns else len(columns)
            columns = (*columns[:place], "seeds", *columns[place:])
        elif not grouped:
            columns = tuple(key for key in columns if key != "seeds")
        self.set_view(grouped=grouped, columns=columns)

    def action_cost(self) -> None:
        self.set_view(cost=COSTS[(COSTS.index(self.dashboard.view.cost) + 1) % len(COSTS)])

    def action_study(self) -> None:
        names = [("", "all studies"), *((v.name, v.name) for v in self.dashboard.snapshot.studies)]

        def chosen(name: str | None) -> None:
            if name is not None:
                self.set_view(study=name or None)

        self.app.push_screen(ChooseScreen("Show", names, self.dashboard.view.study or ""), chosen)

    # --- replay ---

    def _runs(self, snapshot: Snapshot) -> list[Run]:
        """The runs of now, or of the moment that is replayed."""
        span = replay.span(snapshot.runs) if self._replay is not None else None
        if self._replay is None or span is None:
            return snapshot.runs
        first, last = span
        return replay.at(snapshot.runs, first + (last - first) * self._replay / 100)

    def action_replay(self) -> None:
        """From the first start to now in twenty seconds; a second time: back to now."""
        self._stop_player()
        self._replay = 0 if self._replay is None else None
        if self._replay is not None:
            self._player = self.set_interval(0.2, lambda: self._wind(1))
        self.dashboard.show_news()

    def action_wind(self, by: int) -> None:
        self._stop_player()
        self._wind(by)

    def _wind(self, by: int) -> None:
        """By so many percent; past the end it is live again."""
        place = (100 if self._replay is None else self._replay) + by
        self._replay = max(0, place) if place < 100 else None
        if self._replay is None:
            self._stop_player()
        self.dashboard.show_news()

    def _stop_player(self) -> None:
        if self._player is not None:
            self._player.stop()
            self._player = None

    # --- marks ---

    def _keys(self) -> list[Key]:
        """All runs of the line under the cursor."""
        return [run.key for run in self.table.current.runs] if self.table.current else []

    def action_mark(self) -> None:
        self._toggle(self.dashboard.marked)
        self.table.action_move(1)

    def action_pin(self) -> None:
        self._toggle(self.dashboard.pinned)

    def _toggle(self, held: set[Key]) -> None:
        keys = self._keys()
        if held.issuperset(keys):
            held.difference_update(keys)
        else:
            held.update(keys)
        self.dashboard.show_news()

    def action_unmark_all(self) -> None:
        self.dashboard.marked.clear()
        self.dashboard.show_news()

    # --- to other screens ---

    def on_run_table_moved(self, message: RunTable.Moved) -> None:
        self.dashboard.focus_key = message.key
        self._preview()

    def on_run_table_opened(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        if key := self.table.current_key:
            self.app.push_screen(RunScreen(key))

    def action_compare(self) -> None:
        keys = [key for key in self.dashboard.board_keys if key in self.dashboard.marked]
        keys = keys or [line.key for line in self.dashboard.board.lines[:3]]
        if keys:
            self.app.push_screen(CompareScreen(tuple(keys)))
        else:
            self.notify("Nothing to compare: mark trials with space.")

    def action_preview(self) -> None:
        pane = self.query_one(Preview)
        pane.display = not pane.display
        self.call_after_refresh(self._preview)

    def action_draw(self) -> None:
        if key := self.table.current_key:
            self.dashboard.focus_key = key
            self.dashboard.action_mode("pad")

    # --- what changes the world ---

    def _study(self) -> str | None:
        key = self.table.current_key
        name = key[0] if key else self.dashboard.view.study
        if name is None:
            self.notify("No study here.")
        return name

    def action_launch(self) -> None:
        self.app.push_screen(LaunchScreen(form_from(None, self.dashboard.results)))

    def action_clone(self) -> None:
        if study := self._study():
            view = self.dashboard.snapshot.study(study)
            self.app.push_screen(LaunchScreen(form_from(view, self.dashboard.results)))

    def action_stop(self) -> None:
        if study := self._study():
            self.dashboard.ask_stop(study)

    def action_resume(self) -> None:
        if study := self._study():
            self.dashboard.ask_resume(study)

    def action_export(self) -> None:
        if key := self.table.current_key:
            self.dashboard.ask_export(key)

    def action_show_command(self) -> None:
        if key := self.table.current_key:
            command = commands.typed(commands.export_words(*key, Path(f"{key[0]}-{key[1]}"), self.dashboard.results))
            self.app.copy_to_clipboard(command)
            self.notify(command, title="Copied", timeout=10, markup=False)

    def action_views(self) -> None:
        views = load_views()
        if not views:
            self.notify("No saved views yet: V saves this one.")
            return

        def chosen(name: str | None) -> None:
            if name:
                self.dashboard.view = views[name]
                self.dashboard.show_news()

        self.app.push_screen(ChooseScreen("Saved views", [(name, name) for name in views]), chosen)

    def action_save_view(self) -> None:
        def named(name: str | None) -> None:
            if not name:
                return
            try:
                save_view(name.strip(), self.dashboard.view)
            except OSError as error:
                self.notify(f"Not saved: {error.strerror or error}", severity="error", markup=False)
            else:
                self.notify(f"View '{name.strip()}' saved.", markup=False)

        check = lambda name: None if name.strip() else "give it a name"  # noqa: E731
        self.app.push_screen(PromptScreen("Save this view as", check=check), named)
