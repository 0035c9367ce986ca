"""What the command line prints: tables for people, plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.text import Text

from suite.errors import printable
from suite.ranking import leaderboard as ranking_leaderboard
from suite.ranking.leaderboard import COSTS, Row
from suite.spec import Evaluated, Status
from suite.spec import Progress as Training
from suite.store import study as store_study
from suite.store.events import EventReader
from suite.store.study import StudyDir, open_study


class _Plain(Console):
    """Shows text as it is, whoever wrote it: no markup in square brackets, nothing that drives the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


class _Progress(_Plain):
    def on_broken_pipe(self) -> None:
        """Whoever read the progress has gone; the work goes on, where rich would end the process."""
        self.quiet = True


def _console(kind: type[_Plain], stream: TextIO) -> _Plain:
    """Off a terminal lines are as long as they are, for grep and logs. Writes to the stream of the day."""
    width = None if stream.isatty() else 500
    return kind(stderr=stream is sys.stderr, highlight=False, markup=False, emoji=False, width=width)


out, err = _console(_Plain, sys.stdout), _console(_Progress, sys.stderr)


def gather(results: Path, study: str | None, *, sort: str, cost: str | None = None) -> list[Row]:
    """Ranked rows of one study, or of all."""
    chosen = [open_study(results, study)] if study else store_study.studies(results)
    with store_study.gc_paused():
        rows = [ranking_leaderboard.row(s.name, state) for s in chosen for state in s.states()]
        return ranking_leaderboard.rank(rows, sort=sort, cost=cost)


@dataclass(frozen=True)
class Table:
    """Lines with their styles. Ours, as rich's own table takes a millisecond a row and squeezes every column alike
    where the terminal is narrow; here a line that is too long loses its end."""

    lines: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = options.max_width if console.is_terminal else None
        styles = {name: console.get_style(name) for name in {style for _, style in self.lines}}
        for text, style in self.lines:
            yield Segment(text if width is None else cut(text, width), styles[style])
            yield Segment.line()


def cut(text: str, width: int) -> str:
    """At most so many cells of a line, with an ellipsis where something is missing."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def table(rows: Sequence[Row], columns: Sequence[str], *, top: int | None = None, title: str = "") -> Table:
    """The leaderboard; rows that did not finish are dimmed, Pareto rows carry a star."""
    rows = rows[:top]
    known = [ranking_leaderboard.column(key) for key in columns]
    numbers = [bool(c.best or c.key == "rank") for c in known]  # they stand to the right
    cells = [_aligned([c.title, *ranking_leaderboard.texts(rows, c.key)], right) for c, right in zip(known, numbers)]
    lines = ["  ".join(line).rstrip() for line in zip(*cells, strict=True)]
    styles = ["bold green" if row.pareto else "none" if row.state == "finished" else "dim" for row in rows]
    heading = [(title, "italic")] if title else []
    return Table([*heading, *zip(lines, ["bold", *styles], strict=True)])


def _aligned(cells: list[str], right: bool) -> list[str]:
    """Cells of equal width."""
    if "".join(cells).isascii():
        width = max(map(len, cells))
        return [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
    width = max(map(cell_len, cells))
    blanks = [" " * (width - cell_len(cell)) for cell in cells]
    return [blank + cell if right else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def summary(rows: Sequence[Row], cost: str) -> str:
    """One line under the table: how many came to what, and what the star means."""
    states = sorted({row.state for row in rows})
    counts = ", ".join(f"{sum(row.state == s for row in rows)} {s}" for s in states)
    title = ranking_leaderboard.column(cost).title
    return f"{len(rows)} trials: {counts}. * = nothing finished is as accurate for fewer {title}."


def print_leaderboard(rows: Sequence[Row], columns: Sequence[str], *, sort: str, top: int | None, title: str) -> None:
    cost = sort if sort in COSTS else "flops"
    out.print(table(rows, columns, top=top, title=title), crop=False)  # it has cut its lines itself
    hidden = len(rows) - len(rows[:top])
    out.print((f"{hidden} more rows (--top {len(rows)} shows all). " if hidden > 0 else "") + summary(rows, cost))


class Display:
    """Follows a sweep by its statuses: a bar on a terminal, a line a finished trial elsewhere."""

    def __init__(self, results: Path, *, quiet: bool) -> None:
        self.results, self.quiet = results, quiet
        self.bar: Progress | None = None
        self.task: Any = None
        self.study = ""
        self.shown = -1
        self.readers: dict[str, EventReader] = {}
        self.live: dict[str, str] = {}
        self.last: Status | None = None

    def update(self, status: Status) -> None:
        self.last = status
        if self.quiet:
            return
        done = status.finished + status.pruned + status.failed
        if self.bar is None:
            if done != self.shown or status.state != "running":
                self.shown = done
                err.print(self._line(status, done))
            return
        if status.study != self.study:
            self.study = status.study
            self.task = self.bar.add_task(self.study, total=status.planned, eta="", best="", live="")
        best = f"best {100 * status.best_accuracy:.2f}%" if status.best_accuracy is not None else ""
        eta = f"about {duration(status.eta_seconds)} left" if status.eta_seconds else ""
        self.bar.update(self.task, completed=done, eta=eta, best=best, live=self._live(status))

    def _line(self, status: Status, done: int) -> str:
        best = f", best {100 * status.best_accuracy:.2f}% ({status.best_trial})" if status.best_accuracy else ""
        eta = f", about {duration(status.eta_seconds)} left" if status.eta_seconds and status.state == "running" else ""
        state = "" if status.state == "running" else f" {status.state}"
        return (
            f"{time.strftime('%H:%M:%S')} {status.study}{state}: {done}/{status.planned} "
            f"({status.finished} finished, {status.pruned} pruned, {status.failed} failed){best}{eta}"
        )

    def _live(self, status: Status) -> str:
        """What the running trials are at, read from their event logs like any other viewer would."""
        directory = StudyDir(self.results, status.study)
        for trial_id in status.running:
            reader = self.readers.setdefault(trial_id, EventReader(directory.trial(trial_id).events))
            for line in reader.poll():
                if isinstance(line.event, Training):
                    e = line.event
                    self.live[trial_id] = f"{trial_id[:4]} epoch {e.epoch:.1f} {e.images_per_second:,.0f} img/s"
                elif isinstance(line.event, Evaluated):
                    self.live[trial_id] = f"{trial_id[:4]} epoch {line.event.epoch:g} {100 * line.event.accuracy:.2f}%"
        for gone in set(self.live) - set(status.running):
            self.live.pop(gone)
            self.readers.pop(gone, None)
        return " | ".join(self.live.values())


@contextmanager
def following(results: Path, *, quiet: bool) -> Iterator[Display]:
    """A display for the time of a sweep."""
    display = Display(results, quiet=quiet)
    if quiet or not err.is_terminal:
        yield display
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[best]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        TextColumn("{task.fields[live]}", style="dim"),
    )
    with Progress(*columns, console=err) as display.bar:
        yield display


@contextmanager
def downloading(quiet: bool) -> Iterator[Any]:
    """An `on_progress(done, total, label)` that draws a bar, or says a line a file where there is no terminal."""
    if quiet or not err.is_terminal:
        said: set[str] = set()

        def plain(done: int, total: int | None, label: str) -> None:
            if not quiet and label not in said:
                said.add(label)
                err.print(f"fetching {label}")

        yield plain
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=err) as bar:
        tasks: dict[str, Any] = {}

        def drawn(done: int, total: int | None, label: str) -> None:
            task = tasks.get(label)
            if task is None:
                task = tasks[label] = bar.add_task(label, total=total)
            bar.update(task, completed=done, total=total)

        yield drawn


@contextmanager
def drawing(what: str, quiet: bool) -> Iterator[Any]:
    """An `on_step(done, total)` for work that takes some seconds: a bar, or now and then a line elsewhere."""
    if not quiet and err.is_terminal:
        with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    spoke = time.monotonic()

    def plain(done: int, total: int) -> None:
        nonlocal spoke
        if not quiet and time.monotonic() - spoke > 2:
            spoke = time.monotonic()
            err.print(f"{done} of {total} {what}")

    yield plain


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
