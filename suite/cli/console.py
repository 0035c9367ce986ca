"""What the command line prints: tables, results and progress. Without a terminal, progress is plain lines."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from suite.errors import printable
from suite.ranking import gains
from suite.ranking import leaderboard as board
from suite.ranking.leaderboard import COSTS, Row
from suite.spec import Evaluated, Measuring, Status
from suite.spec import Progress as TrainingProgress
from suite.store.events import EventReader
from suite.store.files import dump_json
from suite.store.liveness import Life, Pulse, looked_at
from suite.store.study import StudyDir, gc_paused, open_study, studies
from suite.store.trial import TrialState

OnStep = Callable[[int, int], None]  # called with the steps done and the steps in total

OnPictures = Callable[[int, int, str], None]  # called with the pictures done, their total, and what is being done

OnBytes = Callable[[int, int | None, str], None]  # called with the bytes done, the bytes in total if known, and a label


class _PlainConsole(Console):
    """A console that prints text of unknown origin literally: no markup in square brackets, no control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    @property
    def live(self) -> bool:
        """Whether lines may be drawn again in place: on a real terminal that takes control sequences, outside of CI.

        FORCE_COLOR and TTY_COMPATIBLE=1 let rich colour what goes into a file or a pipe. They make no terminal of it.
        """
        refused = os.environ.get("TTY_INTERACTIVE") == "0" or os.environ.get("CI", "").lower() not in ("", "0", "false")
        return self.file.isatty() and self.is_terminal and not self.is_dumb_terminal and not refused


class _ProgressConsole(_PlainConsole):
    """A console that becomes silent when the reader of its output closes the pipe; rich would end the process."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def _console(kind: type[_PlainConsole], stream: TextIO) -> _PlainConsole:
    """A console on stdout or stderr. Without a terminal, lines are not wrapped, so that grep finds whole lines."""
    width = None if stream.isatty() else 500
    return kind(stderr=stream is sys.stderr, highlight=False, markup=False, emoji=False, width=width)


out, err = _console(_PlainConsole, sys.stdout), _console(_ProgressConsole, sys.stderr)


def gather(results: Path, study: str | None, *, sort: str, pulses: dict[str, Pulse] | None = None) -> list[Row]:
    """The ranked rows of one study, or of all if it is None. Raises InputError if there is no such study.

    `pulses` by study are kept from one call to the next by who watches; without them one look has to do.
    """
    chosen = [open_study(results, study)] if study else studies(results)
    if pulses is None:
        found = looked_at([one.status for one in chosen])
    else:
        found = [pulses.setdefault(one.name, Pulse()) for one in chosen]
        for one, pulse in zip(chosen, found):
            pulse.look(one.status())
    with gc_paused():
        rows = [row for one, pulse in zip(chosen, found) for row in gains.board(one, now=pulse.present)]
        return board.rank(rows, sort=sort)


def lost_controller(status: Status, life: Life, results: Path | None) -> str:
    """A sentence on a controller that has died or gives no sign of life, with the command that goes on; else "".

    `results`: the results directory where it is not the default one.
    """
    what = {"died": "has died", "silent": "has not reported for a while and may be dead"}.get(life)
    if what is None:
        return ""
    place = f" --results {shlex.quote(str(results))}" if results else ""
    return (
        f"The controller of study {status.study}, pid {status.pid} on {status.host}, {what}. "
        f"`mnist-suite sweep --study {status.study} --resume{place}` goes on."
    )


@dataclass(frozen=True)
class Table:
    """Lines, each with its style. On a terminal a line that is too long is truncated.

    It replaces `rich.table.Table`, which takes a millisecond for each row and narrows all columns on a narrow terminal.
    """

    lines: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        width = options.max_width if console.file.isatty() else None
        styles = {name: console.get_style(name) for name in {style for _, style in self.lines}}
        for text, style in self.lines:
            yield Segment(text if width is None else truncated(text, width), styles[style])
            yield Segment.line()


def truncated(text: str, width: int) -> str:
    """The text in at most `width` terminal cells; it ends with an ellipsis if it was longer."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def table(rows: Sequence[Row], columns: Sequence[str], *, top: int | None = None, title: str = "") -> Table:
    """The leaderboard as a table. Rows on the Pareto front are bold; rows of unfinished trials are dim.

    Where the rows are of several validation sets, each has a part of its own under its name, with `top` rows.
    """
    groups = board.by_validation_set(rows)
    shown = board.first_of_each(rows, top)
    known = [board.column(key) for key in columns]
    numbers = [bool(c.best or c.key == "rank") for c in known]  # numbers are right-aligned
    cells = [_aligned([c.title, *board.texts(shown, c.key)], right) for c, right in zip(known, numbers)]
    heading, *lines = ["  ".join(line).rstrip() for line in zip(*cells, strict=True)]
    styles = ["bold green" if row.pareto else "none" if row.state == "finished" else "dim" for row in shown]
    styled = iter(zip(lines, styles, strict=True))
    found = [(title, "italic")] if title else []
    found.append((heading, "bold"))
    for group, of_group in groups.items():
        if len(groups) > 1:
            found.append((f"data set {printable(board.name_of(group))}", "italic"))
        found += islice(styled, len(of_group[:top]))
    return Table(found)


def _aligned(cells: list[str], right: bool) -> list[str]:
    """The cells padded to equal width."""
    if "".join(cells).isascii():
        width = max(map(len, cells))
        return [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
    width = max(map(cell_len, cells))
    blanks = [" " * (width - cell_len(cell)) for cell in cells]
    return [blank + cell if right else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def summary(rows: Sequence[Row], cost: str) -> str:
    """The line under the table: the number of trials in each state, and the meaning of the star."""
    states = sorted({row.state for row in rows})
    counts = ", ".join(_of_state(rows, state) for state in states)
    title = board.column(cost).title
    apart = " on the same data set" if len(board.by_validation_set(rows)) > 1 else ""
    return f"{len(rows)} trials: {counts}. * = nothing finished{apart} is as accurate for fewer {title}."


def _of_state(rows: Sequence[Row], state: str) -> str:
    """How many trials are in a state; of the pruned ones, how far they went."""
    own = [row for row in rows if row.state == state]
    if state != "pruned":
        return f"{len(own)} {state}"
    ends = Counter(row.epochs[-1] if row.epochs else 0 for row in own)
    after = ", ".join(f"{count} after {epochs:.3g} epoch{'s' * (epochs > 1)}" for epochs, count in sorted(ends.items()))
    return f"{len(own)} pruned ({after})"


def print_leaderboard(rows: Sequence[Row], columns: Sequence[str], *, sort: str, top: int | None, title: str) -> None:
    """Print the table and its summary on stdout."""
    cost = sort if sort in COSTS else "flops"
    out.print(table(rows, columns, top=top, title=title), crop=False)  # the table truncates its lines itself
    hidden = len(rows) - len(board.first_of_each(rows, top))
    out.print((f"{hidden} more rows (--top {len(rows)} shows all). " if hidden > 0 else "") + summary(rows, cost))


def print_trial(study: str, state: TrialState, *, repeated: bool, as_json: bool) -> None:
    """Print the result of a single training, with its cost and what to do next, on stdout.

    `repeated`: an earlier command trained it already, and this one only found it.
    """
    row = board.row(study, state)
    if as_json:
        print(dump_json({**board.as_dict(row), "repeated": repeated}))
        return
    if repeated and state.record is not None:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.record.ended))
        out.print(f"Trained before, on {when}, and not again. Another --seed or a --study NAME trains anew.")
    low, high = 100 * (row.low or 0), 100 * (row.high or 0)
    onward = f"mnist-suite finetune --from {study} ..."  # a head alone is no initial weights: its export is
    if state.trial.strategy.kind == "head":
        onward = "mnist-suite finetune --from model ..."
    out.print(
        f"{study}/{row.trial}: {board.text(row, 'accuracy')} on validation "
        f"(95% interval {low:.2f} to {high:.2f}), best of {len(row.curve)} epochs, {board.text(row, 'tuned')}\n"
        f"{board.text(row, 'params')} parameters ({board.text(row, 'trainable')} trained), "
        f"{board.text(row, 'flops')} FLOPs per image, {board.text(row, 'seconds')} of training, "
        f"energy {board.text(row, 'energy') if row.energy is not None else row.energy_source}\n"
        f"next: mnist-suite export {study} --to model   or   {onward}"
    )


class SweepProgress:
    """Shows the statuses of a running study: a progress bar on a terminal, else a line for each finished trial."""

    def __init__(self, results: Path, *, quiet: bool) -> None:
        self.results, self.quiet = results, quiet
        self.bar: Progress | None = None
        self.task: Any = None
        self.study = ""
        self.shown = (-1, 0)  # trials that were over, and paused
        self.readers: dict[str, EventReader] = {}
        self.live: dict[str, str] = {}
        self.last: Status | None = None
        self.notes: set[str] = set()
        self.began = time.time()

    def note(self, text: str) -> None:
        """Print a line, unless it was printed before."""
        if text not in self.notes and not self.quiet:
            self.notes.add(text)
            err.print(text)

    def update(self, status: Status) -> None:
        """Show a new status."""
        self.last = status
        if self.quiet:
            return
        done = status.finished + status.pruned + status.failed
        self._read(status)
        if self.bar is None:
            if (done, status.paused) != self.shown or status.state != "running":
                self.shown = (done, status.paused)
                err.print(self._line(status, done))
            return
        if status.study != self.study:
            self.study = status.study
            self.task = self.bar.add_task(self.study, total=status.planned, eta="", best="", live="")
        best = f"best {100 * status.best_accuracy:.2f}%" if status.best_accuracy is not None else ""
        if status.paused:  # these make no progress that the bar shows
            best = f"{status.paused} paused {best}".rstrip()
        eta = f"about {duration(status.eta_seconds)} left" if status.eta_seconds else ""
        self.bar.update(self.task, completed=done, eta=eta, best=best, live=" | ".join(self.live.values()))

    def _line(self, status: Status, done: int) -> str:
        best = f", best {100 * status.best_accuracy:.2f}% ({status.best_trial})" if status.best_accuracy else ""
        eta = f", about {duration(status.eta_seconds)} left" if status.eta_seconds and status.state == "running" else ""
        state = "" if status.state == "running" else f" {status.state}"
        paused = f", {status.paused} paused" if status.paused else ""
        return (
            f"{_clock(time.time())} {status.study}{state}: {done}/{status.planned} "
            f"({status.finished} finished, {status.pruned} pruned, {status.failed} failed{paused}){best}{eta}"
        )

    def _read(self, status: Status) -> None:
        """Read the progress of the running trials from their event logs. Without a bar, measurements are printed."""
        directory = StudyDir(self.results, status.study)
        for trial_id in status.running:
            reader = self.readers.setdefault(trial_id, EventReader(directory.trial(trial_id).events))
            for line in reader.poll():
                if isinstance(line.event, TrainingProgress):
                    e = line.event
                    self.live[trial_id] = f"{trial_id[:4]} epoch {e.epoch:.1f} {e.images_per_second:,.0f} img/s"
                elif isinstance(line.event, Evaluated):
                    self.live[trial_id] = f"{trial_id[:4]} epoch {line.event.epoch:g} {100 * line.event.accuracy:.2f}%"
                elif isinstance(line.event, Measuring):
                    self.live[trial_id] = f"{trial_id[:4]} measuring {line.event.what}"
                    if self.bar is None and line.time > self.began:
                        err.print(f"{_clock(line.time)} {status.study}/{trial_id}: measuring {line.event.what}")
        for ended in set(self.live) - set(status.running):
            self.live.pop(ended)
            self.readers.pop(ended, None)


@contextmanager
def sweep_progress(results: Path, *, quiet: bool) -> Iterator[SweepProgress]:
    """Context in which the progress of a study is shown; yields the object to update."""
    progress = SweepProgress(results, quiet=quiet)
    if quiet or not err.live:
        yield progress
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
    with Progress(*columns, console=err) as progress.bar:
        yield progress


@contextmanager
def download_progress(quiet: bool) -> Iterator[OnBytes]:
    """Context in which downloads are shown: a bar for each file, or a line without a terminal."""
    if quiet or not err.live:
        begun: set[str] = set()

        def print_line(done: int, total: int | None, label: str) -> None:
            if not quiet and label not in begun:
                begun.add(label)
                err.print(f"fetching {label}")

        yield print_line
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=err) as bar:
        tasks: dict[str, Any] = {}

        def update_bar(done: int, total: int | None, label: str) -> None:
            task = tasks.get(label)
            if task is None:
                task = tasks[label] = bar.add_task(label, total=total)
            bar.update(task, completed=done, total=total)

        yield update_bar


@contextmanager
def step_progress(what: str, quiet: bool) -> Iterator[OnStep]:
    """Context in which the steps of some work are shown: a bar, or a line every two seconds without a terminal.

    Args:
        what: What the steps are, in the plural.
        quiet: Show nothing.
    """
    if not quiet and err.live:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
        # What is printed to a pipe meanwhile must not be redirected to the terminal.
        with Progress(*columns, console=err, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    printed = time.monotonic()

    def print_line(done: int, total: int) -> None:
        nonlocal printed
        if not quiet and time.monotonic() - printed > 2:
            printed = time.monotonic()
            err.print(f"{done} of {total} {what}")

    yield print_line


@contextmanager
def picture_progress(*, quiet: bool) -> Iterator[OnPictures]:
    """Context in which the reading of pictures is shown: a bar for each step, or a line every two seconds."""
    if not quiet and err.live:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as bar:
            tasks: dict[str, Any] = {}

            def update_bar(done: int, total: int, what: str) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total or None)
                bar.update(tasks[what], completed=done, total=total or None)

            yield update_bar
        return
    begun, printed = time.monotonic(), -math.inf

    def print_line(done: int, total: int, what: str) -> None:
        nonlocal begun, printed
        now = time.monotonic()
        if done <= 1:
            begun = now
        if not quiet and now - printed > 1 and (done < total or not total):
            printed = now
            left = f", about {duration((now - begun) / done * (total - done))} left" if done > 1 else ""
            err.print(f"{what}: {done} of {total}{left}" if total else what)

    yield print_line


def _clock(seconds: float) -> str:
    """A time since 1970 as the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, for example "12 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
