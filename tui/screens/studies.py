"""All studies with their progress, best trial and energy; launching, stopping, resuming and cloning them."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import DataTable, Footer

from suite.ranking.leaderboard import text
from tui.draw.cells import GLYPHS, ago, duration, joules, measured
from tui.keys import bindings
from tui.model.detail import Detail, clean
from tui.model.jobs import jobs
from tui.model.snapshot import Key, Snapshot, StudyView
from tui.screens.base import LiveScreen
from tui.widgets.budget import bar, projected, said
from tui.widgets.jobs import Jobs
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

COLUMNS = (
    "study",
    "state",
    "done",
    "",
    "best",
    "test acc",
    "gain",
    "trial",
    "arm",
    "tags",
    "energy",
    "at the end",
    "eta",
    "last sign",
    "experiment",
    "data set",
)


class StudiesScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("open", "open", "Its trials"),
        ("launch", "launch"),
        ("clone", "clone"),
        ("stop", "stop", "Stop"),
        ("resume", "resume"),
        ("jobs-log", "jobs_log", "Log"),
        hidden=(
            ("final", "final"),
            ("down", "cursor(1)"),
            ("up", "cursor(-1)"),
            ("back", "app.mode('board')"),
            ("note", "note"),
            ("archive", "archive"),
            ("delete", "delete"),
        ),
    )

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield DataTable(id="studies", cursor_type="row", zebra_stripes=True)
        yield Static(id="question", markup=False)
        yield Jobs()
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for name in COLUMNS:
            table.add_column(name, key=name or "bar")
        table.focus()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        table, key = self.query_one(DataTable), self.session.focus_key
        if key is not None and key[0] in table.rows:
            table.move_cursor(row=table.get_row_index(key[0]))

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("Studies", snapshot, session.problem, session.readonly)
        self.query_one(Jobs).show(jobs(snapshot, session.launching.tasks, [view.name for view in snapshot.studies]))
        table = self.query_one(DataTable)
        known = {key.value: key for key in table.rows}
        there = {view.name for view in snapshot.studies}
        for name in known.keys() - there:
            table.remove_row(known[name])
        for view in snapshot.studies:
            cells = study_cells(view, session.clock())
            if view.name not in known:
                table.add_row(*cells, key=view.name)
                continue
            for column, value in zip(COLUMNS, cells):  # updating an unchanged cell would cost a redraw
                if table.get_cell(view.name, column or "bar") != value:
                    table.update_cell(view.name, column or "bar", value, update_width=True)
        self._question()

    def _question(self) -> None:
        view = self.current
        words = self.session.snapshot.problem or ""
        if view is not None:
            words = view.file.experiment.question if view.file else "study.json cannot be read."
            if view.note.text:
                words += f"\nNote: {view.note.text}"
            if view.status and view.status.message:
                words += f"\n{said(view.status)}"
        self.query_one("#question", Static).update(clean(words))

    def on_data_table_row_highlighted(self) -> None:
        self._question()

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    @property
    def current(self) -> StudyView | None:
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        return self.session.snapshot.study(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def action_cursor(self, by: int) -> None:
        table = self.query_one(DataTable)
        table.action_cursor_down() if by > 0 else table.action_cursor_up()

    def action_open(self) -> None:
        if view := self.current:
            self.session.view = self.session.view.changed(study=view.name)
            self.session.action_mode("board")

    def action_launch(self) -> None:
        self.session.launching.ask_launch(None)

    def action_clone(self) -> None:
        if view := self.current:
            self.session.launching.ask_launch(view.name)

    def action_stop(self) -> None:
        if view := self.current:
            self.session.launching.ask_stop(view.name)

    def action_final(self) -> None:
        if view := self.current:
            self.session.launching.ask_final(view.name)

    def action_jobs_log(self) -> None:
        launching = self.session.launching
        newest = launching.tasks[-1].study if launching.tasks else ""
        waiting = newest and self.session.snapshot.study(newest) is None  # its study has no row yet
        launching.open_log(None if waiting or not self.current else self.current.name)

    def action_note(self) -> None:
        if view := self.current:
            self.session.upkeep.ask_note(view.name)

    def action_archive(self) -> None:
        if view := self.current:
            self.session.upkeep.archive(view.name)

    def action_delete(self) -> None:
        if view := self.current:
            self.session.upkeep.ask_delete(view.name)

    def action_resume(self) -> None:
        if view := self.current:
            self.session.launching.ask_resume(view.name)


def study_cells(view: StudyView, now: float) -> tuple[str, ...]:
    """The cells of a study's row, in the order of `COLUMNS`."""
    best, status = view.best, view.status
    eta = status.eta_seconds if status and status.state == "running" and not view.stale else None
    return (
        view.name,
        f"{GLYPHS.get(view.state, '?')} {view.state}{' archived' if view.note.archived else ''}",
        f"{view.done}/{view.planned}",
        bar(view.done / max(1, view.planned), 10),
        text(best.row, "accuracy") if best else "-",
        measured(best.row, "test") if best else "-",
        measured(best.row, "gain") if best else "-",
        f"{best.row.number:04d}" if best else "-",
        best.row.arm if best else "-",
        " ".join(view.note.tags) or "-",
        joules(view.energy),
        joules(projected(view)),
        duration(eta),
        ago(now - status.heartbeat) if status else "-",
        view.file.experiment.name if view.file else "-",
        view.file.experiment.dataset if view.file else "-",
    )
