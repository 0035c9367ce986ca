"""Benchmarks: ours and the plain alternative in turn, in one run, so that only ratios within it count.

Every benchmark is a generator of (name, value, unit, how it was obtained); `bench` collects them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suite.errors import InputError

ROUNDS = 3  # of each side, in turn; the median counts
RECORDS = 10_000  # rows of `leaderboard`

Figure = tuple[str, float, str, str]


def startup() -> Iterator[Figure]:
    """The time until `mnist-suite --help` has printed."""
    command = [sys.executable, "-m", "suite.cli", "--help"]
    times = [_seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(2 * ROUNDS + 1)]
    times = times[1:]
    yield "startup.help", statistics.median(times), "s", f"median of {len(times)} processes, after a warm-up"


def leaderboard() -> Iterator[Figure]:
    """Ranking and printing 10,000 records that are in memory, and reading them from disk first."""
    from suite import leaderboard as board
    from suite import store
    from tui.synthetic import write_study

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, states=["finished"] * RECORDS, epochs=3)
        study = store.studies(root)[0]
        begin = time.perf_counter()
        states = study.states()
        yield "leaderboard.read", time.perf_counter() - begin, "s", f"{len(states)} trials from disk, once"
        rows = [board.row(study.name, state) for state in states]
        times = [_seconds(lambda: board.rank(rows)) for _ in range(ROUNDS)]
        yield "leaderboard.rank", statistics.median(times), "s", f"{len(rows)} rows, median of {ROUNDS}"


def tui() -> Iterator[Figure]:
    """The dashboard's budgets."""
    from tui.bench import BUDGETS
    from tui.bench import bench as measure

    for name, value in measure().items():
        unit = "MiB" if name.endswith("mib") else "s"
        yield f"tui.{name}", value, unit, f"budget {BUDGETS[name]:g} {unit}"


def _race(name: str) -> Callable[[], Iterator[Figure]]:
    """A benchmark of training, imported when it runs."""

    def run() -> Iterator[Figure]:
        from suite.races import RACES

        yield from RACES[name]()

    return run


BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "startup": startup,
    "leaderboard": leaderboard,
    "tui": tui,
    **{
        name: _race(name)
        for name in ("train", "time-to-99", "finetune", "features", "head-sweep", "sweep", "population", "roofline")
    },
}


def bench(name: str | None) -> Iterator[Figure]:
    """One benchmark, or all of them. Raises InputError."""
    if name is not None and name not in BENCHMARKS:
        raise InputError(f"There is no benchmark '{name}'; there is: {', '.join(BENCHMARKS)}.")
    for each in [name] if name else BENCHMARKS:
        yield from BENCHMARKS[each]()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from suite import device
    from suite.runner import packages

    place = device.pick("auto")
    return {"hardware": device.hardware(place), "date": time.strftime("%Y-%m-%d"), "torch": packages()["torch"]}


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
