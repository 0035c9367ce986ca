"""Speed and memory of the dashboard on synthetic studies: `mnist-suite bench tui`.

Values are in seconds unless the name tells another unit. A tick is what the dashboard does whenever its feed polls:
read what is new on disk, arrange the board, draw the screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import tempfile
import termios
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from suite.interpreter import command
from suite.spec import Progress
from suite.store.events import EventWriter
from suite.store.study import StudyDir
from tui.app import Dashboard, collect_less_often
from tui.messages import Polled
from tui.settings import Remembered
from tui.testing.synthetic import NOW, write_study

LIVE = 200  # running trials that write at every tick
RECORDS = 10_000  # finished trials
TICKS = 20  # timed ticks, of which the median is taken
LONG = 10_000  # ticks of the memory measurement
BUDGETS = {  # upper limits
    "first_paint": 1.0,
    "tick_200_live": 0.05,
    "tick_10000_records": 0.1,
    "quit": 1.0,
    "memory_growth_mib": 16.0,
}
SETTLING = 3.0  # seconds until nothing is drawn any more
SIZE = (160, 50)  # of the terminal, in cells


def bench(ticks: int = LONG, live: int = LIVE, records: int = RECORDS) -> dict[str, float]:
    """All measurements by name, as in `BUDGETS`."""
    collect_less_often()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root / "small")
        paint, end = paint_and_quit(root / "small")
        write_study(root / "live", states=["running"] * live)
        write_study(root / "many", states=["finished"] * (records - 1) + ["running"], epochs=3)
        return {
            "first_paint": paint,
            "quit": end,
            "tick_200_live": asyncio.run(tick(root / "live", live)),
            "tick_10000_records": asyncio.run(tick(root / "many", 1)),
            "memory_growth_mib": asyncio.run(memory_growth(root / "small", ticks)) / 2**20,
        }


@contextlib.contextmanager
def in_terminal(results: Path, size: tuple[int, int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The dashboard in a terminal of `size` cells: its process, and the descriptor of what it draws and reads."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    environment |= {"XDG_STATE_HOME": str(results.parent / "state")}  # nothing is remembered
    process = subprocess.Popen(
        command("tui", "--results", str(results), "--read-write", "--no-ascii"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=environment,
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        os.close(master)


def paint_and_quit(results: Path) -> tuple[float, float]:
    """Seconds from the start of Python to the first trial on the screen, and from `q` to the end, in a terminal."""
    begin = time.perf_counter()
    with in_terminal(results, SIZE) as (process, master):
        painted = _read_until(master, "✓".encode(), begin + 30) - begin
        os.write(master, b"q")
        begin = time.perf_counter()
        while process.poll() is None and time.perf_counter() < begin + 30:
            _read(master, 0.01)
        return painted, time.perf_counter() - begin


def idle(results: Path, seconds: float, keys: str = "") -> float:
    """Bytes a second that the dashboard sends to a terminal while nothing changes, on the screen that `keys` opens."""
    with in_terminal(results, (120, 40)) as (_, master):
        _read_until(master, "✓".encode(), time.perf_counter() + 30)
        for key in keys:
            os.write(master, key.encode())
            _count(master, 1.0)
        _count(master, SETTLING)
        return _count(master, seconds) / seconds


def _count(master: int, seconds: float) -> int:
    """Number of bytes that arrive within so many seconds."""
    count, end = 0, time.perf_counter() + seconds
    while (rest := end - time.perf_counter()) > 0:
        count += len(_read(master, rest))
    return count


def _read(master: int, timeout: float) -> bytes:
    ready, _, _ = select.select([master], [], [], timeout)
    try:
        return os.read(master, 65_536) if ready else b""
    except OSError:
        return b""  # the other end is closed


def _read_until(master: int, wanted: bytes, deadline: float) -> float:
    seen = b""
    while wanted not in seen:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"the dashboard did not show {wanted!r} in time")
        seen += _read(master, 0.1)
    return time.perf_counter()


class ManualDashboard(Dashboard):
    """A dashboard without the feed's thread: it polls only when `poll` is called, and its clock stands still."""

    def __init__(
        self, results: Path, *, readonly: bool = False, plain: bool = False, last: Remembered | None = None
    ) -> None:
        super().__init__(results, readonly=readonly, plain=plain, clock=lambda: NOW, last=last or Remembered())
        self.feed.start = lambda: None  # type: ignore[method-assign]

    def poll(self) -> None:
        """Read and show what is new."""
        snapshot, details = self.feed.poll(float("inf"))
        self.on_polled(Polled(snapshot, details, None))

    def paint(self) -> None:
        """Compose the whole screen, as for a terminal that shows nothing yet."""
        self.screen._compositor.render_update(full=True)


async def tick(results: Path, live: int) -> float:
    """Median seconds of a tick in which `live` trials have written an event each."""
    app = ManualDashboard(results)
    study = StudyDir(results, "mnist")
    async with app.run_test(size=SIZE) as pilot:
        app.poll()
        await pilot.pause()
        running = [run for run in app.snapshot.runs if run.row.state == "running"][:live]
        writers = [EventWriter(study.trial(run.row.trial).events) for run in running]
        times: list[float] = []
        for i in range(TICKS):
            event = Progress(
                step=1000 + i, epoch=3.0, loss=0.1, lr=0.1, images_per_second=9000.0 + i, seconds=100.0 + i
            )
            for writer in writers:
                writer.append(event)
            begin = time.perf_counter()
            app.poll()
            app.paint()
            times.append(time.perf_counter() - begin)
        for writer in writers:
            writer.close()
    return statistics.median(times)


async def memory_growth(results: Path, ticks: int) -> float:
    """Bytes by which the Python heap grows over the last 90 % of `ticks`, each of them with a new event."""
    app = ManualDashboard(results)
    study = StudyDir(results, "mnist")
    async with app.run_test(size=(80, 24)) as pilot:
        app.poll()
        await pilot.pause()
        run = next(run for run in app.snapshot.runs if run.row.state == "running")
        app.feed.follow([run.key])
        writer = EventWriter(study.trial(run.row.trial).events)
        before = 0
        tracemalloc.start()
        for i in range(ticks):
            if i == ticks // 10:
                before = tracemalloc.get_traced_memory()[0]
            writer.append(Progress(step=i, epoch=i / 100, loss=0.1, lr=0.1, images_per_second=9000.0, seconds=float(i)))
            app.poll()
            if i % 50 == 0:
                await pilot.pause()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        writer.close()
    return float(max(0, after - before))
