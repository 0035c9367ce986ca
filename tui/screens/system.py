"""Load of this machine, and the health of all writing processes on any machine."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer

from suite.ranking.leaderboard import COLUMNS
from tui.draw.aligned import left, widest
from tui.draw.cells import GLYPHS, ago, sparkline
from tui.keys import bindings
from tui.model.detail import Detail
from tui.model.snapshot import Key, Snapshot
from tui.model.system import Sample, Sampler, Writer, writers
from tui.screens.base import LiveScreen
from tui.widgets.budget import bar
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

EVERY = 2.0  # seconds between measurements
KEPT = 60  # measurements of power
LOW_DISK = 2**30  # bytes
SIGNS = {"ok": "running", "stale": "stale", "gone": "gone"}


class SystemScreen(LiveScreen):
    BINDINGS: ClassVar[list[BindingType]] = bindings(
        ("down", "scroll(1)"), ("up", "scroll(-1)"), hidden=(("back", "app.mode('board')"),)
    )

    def __init__(self, sampler: Callable[[], Sample] | None = None) -> None:
        super().__init__()
        self.sampler = sampler
        self.sample: Sample | None = None
        self.watts: deque[float] = deque(maxlen=KEPT)

    def compose(self) -> ComposeResult:
        yield StatusLine(id="status")
        with VerticalScroll(can_focus=False):
            yield Static(id="machine", markup=False)
            yield Static(id="writers", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.sampler = self.sampler or Sampler(self.session.results, socket.gethostname())
        self.set_interval(EVERY, self._ask)
        self._ask()

    def _ask(self) -> None:
        if self.is_current:
            self._take_sample()

    @work(thread=True, exclusive=True, exit_on_error=False)
    def _take_sample(self) -> None:
        if self.sampler is not None:
            sample = self.sampler()
            self.app.call_later(self._show_machine, sample)

    def _show_machine(self, sample: Sample) -> None:
        self.sample = sample
        watts = [gpu.watts for gpu in sample.gpus if gpu.watts is not None]
        if watts:
            self.watts.append(sum(watts))
        if self.is_mounted:
            self.query_one("#machine", Static).update("\n".join(machine_lines(sample, tuple(self.watts))))

    def update(self, snapshot: Snapshot, details: dict[Key, Detail]) -> None:
        session = self.session
        self.query_one(StatusLine).show("System", snapshot, session.problem, session.readonly)
        found = writers(snapshot, session.clock(), socket.gethostname(), alive)
        self.query_one("#writers", Static).update(writer_lines(found))

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=2 * by, animate=False)


def alive(pid: int) -> bool:
    """Whether a process with this id exists on this machine."""
    try:
        os.kill(pid, 0)  # signal 0 is not delivered
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's process
    return True


def machine_lines(sample: Sample, watts: tuple[float, ...]) -> list[str]:
    size = COLUMNS["memory"].text
    busy = sum(sample.cores) / len(sample.cores) if sample.cores else 0.0
    lines = [
        f"{sample.host} (this machine)",
        f"  CPU     {bar(busy, 20)} {100 * busy:3.0f}% of {len(sample.cores)} cores, load {sample.load[0]:.2f}",
        f"  memory  {bar(sample.used / sample.total, 20)} {size(sample.used)} of {size(sample.total)}",
    ]
    if sample.free_disk is not None:
        warning = "  ALMOST FULL" if sample.free_disk < LOW_DISK else ""
        lines.append(f"  disk    {size(sample.free_disk)} free where the results lie{warning}")
    for i, gpu in enumerate(sample.gpus):
        words = [f"  GPU {i}   "]
        if gpu.busy is not None:
            words.append(f"{bar(gpu.busy, 20)} {100 * gpu.busy:3.0f}% busy")
        if gpu.used is not None and gpu.total:
            words.append(f" {size(gpu.used)} of {size(gpu.total)}")
        if gpu.watts is not None:
            words.append(f" {gpu.watts:.0f} W" + (f" of {gpu.limit:.0f} W" if gpu.limit else ""))
        if gpu.celsius is not None:
            words.append(f" {gpu.celsius} °C")
        lines.append("".join(words) + f"  {gpu.name}")
    if watts:
        lines.append(f"  power   {sparkline(watts, 40)} {watts[-1]:.0f} W, all GPUs")
    if not sample.gpus:
        lines.append("  GPU     none that NVIDIA's library knows of")
    return [*lines, ""]


def writer_lines(found: list[Writer]) -> Text:
    if not found:
        return Text("Nobody is writing: no controller and no trial is at work.")
    name = widest(["Writer", *(w.name for w in found)])
    host = widest(["host", *(w.host for w in found)])
    lines = [f"{left('Writer', name)}  {left('host', host)}  {'pid':>8}  {'last write':>12}  health"]
    for w in sorted(found, key=lambda w: (w.health == "ok", w.health, w.name)):
        sign = GLYPHS[SIGNS[w.health]]
        lines.append(f"{left(w.name, name)}  {left(w.host, host)}  {w.pid:>8}  {ago(w.silent):>12}  {sign} {w.health}")
    return Text("\n".join(lines), no_wrap=True)
