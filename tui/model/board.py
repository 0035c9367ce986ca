"""From runs and a view to the lines of the leaderboard. Pure functions, fast enough for 10,000 runs a tick."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from suite.ranking.leaderboard import COLUMNS, COSTS, DEFAULT, Row, pareto
from tui.model.filters import Filter, Subject, lookup, parse
from tui.model.snapshot import Key, Run

EXTRA = ("flag", "curve", "power", "dataset", "host", "seeds")  # columns of the dashboard alone
START = ("flag", *(key for key in DEFAULT if key not in ("tuned",)), "curve", "tuned")
TOPS = (0, 10, 25, 50, 100)  # 0: all
# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the normal value is close enough
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)


class View(BaseModel):
    """How the leaderboard is shown; what a saved view holds."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    columns: tuple[str, ...] = START
    sort: str = "accuracy"
    reverse: bool = False
    cost: str = "flops"  # of the Pareto front
    filter: str = ""
    study: str | None = None  # None: all of them
    top: int = 0
    grouped: bool = False  # seeds of one configuration on one line

    def sane(self) -> View:
        """Without names that this version does not know."""
        cost = self.cost if self.cost in COSTS else "flops"
        return self.model_copy(update={"cost": cost, "top": max(0, self.top), "columns": self.columns or START})


@dataclass(frozen=True, slots=True)
class BoardLine:
    """One line: a run, or the seeds of one configuration with their mean and its interval."""

    row: Row
    runs: tuple[Run, ...]

    @property
    def key(self) -> Key:
        return self.runs[0].key


@dataclass(frozen=True, slots=True)
class Board:
    lines: tuple[BoardLine, ...] = ()
    matched: int = 0
    total: int = 0
    front: frozenset[Key] = frozenset()
    splits: int = 0  # different validation splits in view; above 1, accuracies are not of one kind

    def place(self, key: Key | None) -> int | None:
        """On which line a run is."""
        return next((i for i, line in enumerate(self.lines) if line.key == key), None) if key else None

    def overlaps(self, place: int) -> bool:
        """Whether a line's interval and that of the line above reach into each other: their order may be luck."""
        if place < 1:
            return False
        row, above = self.lines[place].row, self.lines[place - 1].row
        if row.state != "finished" or None in (row.low, row.high, above.low, above.high):
            return False
        return row.high >= above.low and row.low <= above.high  # type: ignore[operator]


def arrange(runs: Sequence[Run], view: View, *, marked: Collection[Key] = (), pinned: Collection[Key] = ()) -> Board:
    """Filter, group, sort, rank and mark. Raises FilterError for a filter that cannot be read."""
    wanted = parse(view.filter)
    within = [run for run in runs if view.study is None or run.row.study == view.study]
    kept = _filtered(within, wanted, view.cost, marked, pinned)
    lines = grouped(kept) if view.grouped else [BoardLine(run.row, (run,)) for run in kept]
    front = fronts(lines, view.cost)
    lines.sort(key=lambda line: order(line.row, view.sort, view.reverse))
    if pinned:
        lines.sort(key=lambda line: not any(run.key in pinned for run in line.runs))  # stable: keeps the order
    if view.top:
        lines = lines[: view.top]
    return Board(
        lines=tuple(lines),
        matched=len(kept),
        total=len(within),
        front=front,
        splits=len({run.trial.split_hash for run in kept}),
    )


def _filtered(
    runs: list[Run], wanted: Filter, cost: str, marked: Collection[Key], pinned: Collection[Key]
) -> list[Run]:
    if not wanted:
        return runs
    front = fronts([BoardLine(run.row, (run,)) for run in runs], cost) if wanted.about_pareto else frozenset()
    best = max((run for run in runs if run.row.state == "finished"), key=lambda r: r.row.accuracy or 0.0, default=None)

    def properties(run: Run) -> set[str]:
        there = {"marked": run.key in marked, "pinned": run.key in pinned, "pareto": run.key in front}
        return {name for name, holds in (there | {"best": run is best}).items() if holds}

    return [run for run in runs if wanted.matches(Subject(run.row, run.trial.dataset, properties(run)))]


def fronts(lines: Iterable[BoardLine], cost: str) -> frozenset[Key]:
    """Keys of the Pareto lines: one front for each validation split, as accuracies compare only within one."""
    splits: dict[str, list[Row]] = {}
    for line in lines:
        splits.setdefault(line.runs[0].trial.split_hash, []).append(line.row)
    return frozenset((row.study, row.trial) for rows in splits.values() for row in pareto(rows, cost))


def order(row: Row, key: str, reverse: bool = False) -> tuple[Any, ...]:
    """Sort key: finished before the rest, known before unknown, good before bad, then the number."""
    value = row_value(row, key)
    rest = (row.study, row.number)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if value is None:
        return (row.state != "finished", 2, 0, 0, *rest)
    if isinstance(value, str):
        text = value.casefold()
        return (row.state != "finished", 1, _reversed(text) if reverse else text, 0, *rest)
    column = COLUMNS.get(key)
    sign = -1 if bool(column and column.best == "high") != reverse else 1
    tie = -(row.accuracy or 0.0) if key != "accuracy" else float(row.flops or 0)
    return (row.state != "finished", 0, sign * value, tie, *rest)


def _reversed(text: str) -> tuple[int, ...]:
    return (*(-ord(letter) for letter in text), 1)


def row_value(row: Row, key: str) -> Any:
    """What a column sorts by; None where nothing is known."""
    if key == "rank":
        key = "accuracy"
    if key == "curve":
        return row.curve[-1] if row.curve else None
    if key == "power":
        return row.energy / row.seconds if row.energy is not None and row.seconds else None
    if key == "tuned":
        return str(row.tuned)
    value = lookup(row, key)
    return str(value) if isinstance(value, bool | dict | tuple) else value


# --- seeds -------------------------------------------------------------------------------------------------------


def configuration(run: Run) -> tuple[Any, ...]:
    """What two runs share that differ in their seed alone."""
    t = run.trial
    recipe, strategy = t.recipe.model_dump_json(), t.strategy.model_dump_json()
    return (
        t.study,
        t.arm,
        t.dataset,
        t.split_hash,
        t.fraction,
        t.limit,
        t.backbone,
        t.size,
        str(t.weights),
        recipe,
        strategy,
    )


def grouped(runs: Iterable[Run]) -> list[BoardLine]:
    """One line for each configuration: the mean over its finished seeds, with a 95 % t interval from two on."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(configuration(run), []).append(run)
    return [_merged(sorted(members, key=lambda run: run.row.number)) for members in groups.values()]


def _merged(runs: list[Run]) -> BoardLine:
    if len(runs) == 1:
        return BoardLine(runs[0].row, tuple(runs))
    done = [run for run in runs if run.row.state == "finished"] or runs
    row = done[0].row
    values: dict[str, Any] = {
        key: _mean([getattr(run.row, key) for run in done]) for key in ("accuracy", "loss", *COSTS, "speed")
    }
    accuracies = [run.row.accuracy for run in done if run.row.accuracy is not None]
    if len(accuracies) > 1:
        half = t_half_width(accuracies)
        values |= {"low": values["accuracy"] - half, "high": values["accuracy"] + half}
    merged = row._replace(**values)
    # the first is the one the line stands for: its key must not change while seeds come in
    return BoardLine(merged._replace(trial=runs[0].row.trial, number=runs[0].row.number), tuple(runs))


def t_half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    degrees = len(values) - 1
    factor = T95[degrees - 1] if degrees <= len(T95) else 1.96 + 2.5 / degrees
    return factor * statistics.stdev(values) / math.sqrt(len(values))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# --- columns ------------------------------------------------------------------------------------------------------


def known_columns(runs: Iterable[Run]) -> list[str]:
    """All columns there are: the leaderboard's, the dashboard's own, and what was tuned in these runs."""
    tuned = sorted({key for run in runs for key in run.row.tuned})
    return [EXTRA[0], *COLUMNS, *EXTRA[1:], *(key for key in tuned if key not in COLUMNS)]
