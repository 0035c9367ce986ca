"""The leaderboard at an earlier time, reconstructed from the start and end of each trial.

The times of a trial's validations are not recorded, so they are taken as evenly spaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tui.model.snapshot import Run


@dataclass
class Replay:
    """Position of a replay, in percent of the time between the first start and the newest event."""

    percent: int | None = None  # None: live

    def toggle(self) -> None:
        self.percent = 0 if self.percent is None else None

    def move(self, by: int) -> None:
        """Go `by` percentage points forward; from the end on, it is live."""
        place = (100 if self.percent is None else self.percent) + by
        self.percent = max(0, place) if place < 100 else None

    def runs(self, runs: Sequence[Run]) -> Sequence[Run]:
        """The runs as they were at that time."""
        limits = span(runs) if self.percent is not None else None
        if self.percent is None or limits is None:
            return runs
        first, last = limits
        return at(runs, first + (last - first) * self.percent / 100)


def span(runs: Sequence[Run]) -> tuple[float, float] | None:
    """Times of the first start and of the newest event, in seconds since 1970; None if no run has started."""
    started = [run for run in runs if run.began]
    if not started:
        return None
    return min(run.began for run in started), max(max(end(run), run.began) for run in started)


def end(run: Run) -> float:
    """When the run ended, or its newest event so far."""
    return run.record.ended if run.record is not None else run.last


def at(runs: Sequence[Run], time: float) -> list[Run]:
    """The runs that had started by `time`; those that had not ended are running."""
    return [_earlier(run, time) for run in runs if run.began and run.began <= time]


def _earlier(run: Run, time: float) -> Run:
    if end(run) <= time:
        return run
    part = (time - run.began) / (end(run) - run.began)
    curve = run.row.curve[: int(part * len(run.row.curve))]
    names = (
        "low high test test_low test_high gain gain_low gain_high loss train_flops wall memory energy latency reason"
    )
    unknown = dict.fromkeys(names.split())
    row = run.row._replace(
        state="running",
        accuracy=max(curve, default=None),
        curve=curve,
        epochs=run.row.epochs[: len(curve)],
        epoch=run.row.epochs[len(curve) - 1] if curve else None,
        seconds=part * run.row.seconds if run.row.seconds is not None else None,
        **unknown,
    )
    return replace(run, row=row, record=None)
