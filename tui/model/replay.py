"""How the board stood at an earlier moment, from what the files say of beginnings and ends. Pure.

Within a run only its validation accuracies are known, not when each was measured: they are spread evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tui.model.snapshot import Run


def span(runs: Sequence[Run]) -> tuple[float, float] | None:
    """From the first beginning to the last sign of life; None where nothing has begun."""
    begun = [run for run in runs if run.began]
    if not begun:
        return None
    return min(run.began for run in begun), max(max(end(run), run.began) for run in begun)


def end(run: Run) -> float:
    return run.record.ended if run.record is not None else run.last


def at(runs: Sequence[Run], moment: float) -> list[Run]:
    """The runs that had begun by then, those that were not over as running."""
    return [_earlier(run, moment) for run in runs if run.began and run.began <= moment]


def _earlier(run: Run, moment: float) -> Run:
    if end(run) <= moment:
        return run
    part = (moment - run.began) / (end(run) - run.began)
    curve = run.row.curve[: int(part * len(run.row.curve))]
    unknown = dict.fromkeys(("low", "high", "loss", "train_flops", "wall", "memory", "energy", "latency", "reason"))
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
