"""Load of this machine, and the health of all writing processes on any machine."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
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
from tui.model.detail import Detail, clean
from tui.model.snapshot import Key, Snapshot
from tui.model.system import Host, Sample, Sampler, Writer, hosts, writers
from tui.screens.base import LiveScreen
from tui.widgets.budget import bar
from tui.widgets.static import Static
from tui.widgets.status_line import StatusLine

EVERY = 2.0  # seconds between measurements
KEPT = 60  # measurements of power
LOW_DISK = 2**30  # bytes
HEADS, WIDTHS = ("pid", "last write", "power", "memory", "GPU"), (11, 12, 8, 10, 6)
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
        here = socket.gethostname()
        found = hosts(snapshot, writers(snapshot, session.clock(), here, alive), here)
        self.query_one("#writers", Static).update(host_lines(found, here))

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


def host_lines(found: list[Host], here: str) -> Text:
    """All hosts, each with its writers, those in trouble first."""
    every = [writer for host in found for writer in host.writers]
    name = widest(["writer", *(writer.name for writer in every)])
    lines = Text(no_wrap=True)
    for host in found:
        lines.append(f"{host.name}", style="bold")
        lines.append(f"{' (this machine)' if host.name == here else ''}  {_about(host)}\n")
        if host.writers:
            lines.append(f"  {left('health', 8)}{left('writer', name)}{_figures(HEADS)}\n", style="dim")
        for writer in sorted(host.writers, key=lambda w: (w.health == "ok", w.health, w.name)):
            health = left(f"{GLYPHS[SIGNS[writer.health]]} {writer.health}", 8)
            figures = _figures((str(writer.pid), ago(writer.silent), *_load(writer)))
            lines.append(f"  {health}{left(writer.name, name)}{figures}\n")
        lines.append("\n")
    if not every:
        lines.append("Nobody is writing: no controller and no trial is at work.")
    return lines


def _figures(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def _about(host: Host) -> str:
    words = [host.ended.hardware] if host.ended.hardware else []
    words.append(f"{host.ended.trials} trial{'' if host.ended.trials == 1 else 's'} ended")
    if host.writers:
        words.append(f"{len(host.writers)} writer{'' if len(host.writers) == 1 else 's'}")
    if host.silent is not None:
        words.append(f"last sign {ago(host.silent)}")
    return clean(" · ".join(words))


def _load(writer: Writer) -> tuple[str, str, str]:
    """Power, memory and GPU load as the trial has reported them."""
    load = writer.load
    watts = f"{load.watts:.0f} W" if load and load.watts is not None else "-"
    memory = COLUMNS["memory"].text(load.memory_bytes) if load and load.memory_bytes is not None else "-"
    busy = f"{100 * load.gpu_busy:.0f}%" if load and load.gpu_busy is not None else "-"
    return watts, memory, busy
