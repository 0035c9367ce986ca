"""From runs and a view to the lines of the leaderboard.

Pure functions. They run again whenever the results change, so they must be fast for 10,000 runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from operator import attrgetter, is_
from typing import Any, TypeVar, cast

from suite.ranking.leaderboard import COLUMNS, COSTS, Row, ValidationSet, pareto_keys
from suite.ranking.statistics import difference_interval, sample_of_shares
from tui.model.filters import Filter, Subject, lookup, parse
from tui.model.snapshot import Key, Run
from tui.model.view import UNSORTABLE, View

EXTRA = ("flag", "gap", "curve", "power", "host", "seeds")  # columns that only the dashboard has

ACTIVE = ("running", "stale", "waiting")  # states of the trials that stand above the ranking

FOLDED = ("pruned", "paused")  # states of the trials that are counted on one line


@dataclass(frozen=True, slots=True)
class BoardLine:
    """One line: a run, or the mean over the seeds of one configuration with its interval."""

    row: Row
    runs: tuple[Run, ...]

    @property
    def key(self) -> Key:
        return self.runs[0].key


@dataclass(frozen=True)
class Board:
    """The lines in order, and what they are a part of."""

    lines: tuple[BoardLine, ...] = ()
    matched: int = 0  # runs that pass the filter
    total: int = 0  # runs before the filter
    front: frozenset[Key] = frozenset()  # lines on a Pareto front
    splits: int = 0  # number of validation splits among the runs; above 1, not all accuracies are comparable
    best: Mapping[ValidationSet, float] = field(default_factory=dict)  # highest accuracy of a finished run, by split
    leaders: Mapping[ValidationSet, Row] = field(default_factory=dict)  # the row with that accuracy; of grouped lines
    folded: Mapping[str, int] = field(default_factory=dict)  # number of runs that have no line, by state
    archived: int = 0  # number of runs that are left out for being archived

    @property
    def keys(self) -> list[Key]:
        return [line.key for line in self.lines]

    def place(self, key: Key | None) -> int | None:
        """Index of the line with this key, None if there is none."""
        return next((i for i, line in enumerate(self.lines) if line.key == key), None) if key else None

    @cached_property
    def _active(self) -> tuple[int, ...]:
        """For each line the number of trials at work down to it."""
        return tuple(accumulate(line.row.state in ACTIVE for line in self.lines))

    @property
    def active(self) -> int:
        """Number of lines of trials at work, which have no rank."""
        return self._active[-1] if self.lines else 0

    def rank(self, place: int) -> int:
        """The rank of a line: its place among those that are not at work."""
        return place + 1 - self._active[place]

    def gap(self, row: Row) -> float | None:
        """Accuracy less the best one on the same validation set, at most 0 for a finished run."""
        best = self.best.get(row.validation)
        return None if best is None or row.accuracy is None else row.accuracy - best

    def known(self, columns: Iterable[str]) -> set[str]:
        """The columns that have a value on some line."""
        rows = [line.row for line in self.lines]
        return {key for key in columns if key not in UNSORTABLE and _is_known(rows, key)}

    def tied(self, row: Row) -> bool:
        """Whether a finished row cannot be told from the best on its validation set: the 95 % interval of the
        difference holds 0."""
        best = self.leaders.get(row.validation)
        if best is None or best.trial == row.trial or row.state != "finished":
            return False
        if row.accuracy is None or row.low is None or row.high is None:
            return False
        if best.accuracy is None or best.low is None or best.high is None:
            return False
        low, _ = difference_interval(best.accuracy, (best.low, best.high), row.accuracy, (row.low, row.high))
        return low <= 0


T = TypeVar("T")


class Memo:
    """The last results of functions of many runs. At most updates, only runs without a result have changed."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[list[Run], tuple[object, ...], Any]] = {}

    def get(self, name: str, runs: list[Run], asked: tuple[object, ...], make: Callable[[list[Run]], T]) -> T:
        """`make(runs)`, or its last result of this name if neither the runs nor what was `asked` have changed."""
        before, was, found = self._last.get(name, ([], (), None))
        if name not in self._last or was != asked or len(before) != len(runs) or not all(map(is_, before, runs)):
            found = make(runs)
            self._last[name] = (runs, asked, found)
        return cast("T", found)


def arrange(
    runs: Sequence[Run],
    view: View,
    *,
    marked: Collection[Key] = (),
    pinned: Collection[Key] = (),
    memo: Memo | None = None,
) -> Board:
    """Filter, group and sort the runs as the view says; pinned ones come first. Raises FilterError."""
    memo = memo or Memo()
    wanted = parse(view.filter)
    chosen = [run for run in runs if view.study is None or run.row.study == view.study]
    within = chosen if wanted.about_archived else [run for run in chosen if not run.row.archived]
    kept = _filtered(within, wanted, view.cost, marked, pinned)
    finished = [run for run in within if run.row.state == "finished"]
    leaders = memo.get("leaders", finished, (), _leaders_of)
    best = {split: row.accuracy or 0.0 for split, row in leaders.items()}
    hidden: Counter[str] = Counter()
    shown = kept
    if view.folded and not view.filter and best:
        held = {*marked, *pinned}
        shown = [run for run in kept if run.row.state not in FOLDED or run.key in held]
        hidden = Counter(run.row.state for run in kept if run.row.state in FOLDED and run.key not in held)
    if view.grouped:
        lines = grouped(shown)
        front = fronts(lines, view.cost)
        placed = _placed(lines, view)
    else:
        done = [run for run in shown if run.record is not None]
        asked = (view.sort, view.reverse, view.cost)

        def ordered(runs: list[Run]) -> tuple[frozenset[Key], list[Placed]]:
            lines = [BoardLine(run.row, (run,)) for run in runs]
            return fronts(lines, view.cost), sorted(_placed(lines, view), key=_place_of)

        front, before = memo.get("order", done, asked, ordered)
        others = [BoardLine(run.row, (run,)) for run in shown if run.record is None]
        placed = before + _placed(others, view)  # sorted but for these, so that sorting all takes few comparisons
    lines = [line for _, line in sorted(placed, key=_place_of)]
    if pinned:
        lines.sort(key=lambda line: not any(run.key in pinned for run in line.runs))  # stable: keeps the order
    if view.top:
        lines = lines[: view.top]
    return Board(
        lines=tuple(lines),
        matched=len(kept),
        total=len(within),
        front=front,
        splits=len({run.row.validation for run in kept}),
        best=best,
        leaders=_leaders(line.row for line in lines) if view.grouped else leaders,
        archived=len(chosen) - len(within),
        folded={state: hidden[state] for state in FOLDED if hidden[state]},
    )


Placed = tuple[tuple[Any, ...], BoardLine]  # a line with its sort key


def _placed(lines: Iterable[BoardLine], view: View) -> list[Placed]:
    return [((line.row.state not in ACTIVE, *order(line.row, view.sort, view.reverse)), line) for line in lines]


def _place_of(placed: Placed) -> tuple[Any, ...]:
    return placed[0]


def _leaders_of(runs: list[Run]) -> dict[ValidationSet, Row]:
    return _leaders(run.row for run in runs)


def _leaders(rows: Iterable[Row]) -> dict[ValidationSet, Row]:
    """The finished row with the highest accuracy, by validation set; of equal ones the first."""
    found: dict[ValidationSet, Row] = {}
    for row in rows:
        if row.state == "finished" and row.accuracy is not None:
            other = found.get(row.validation)
            if other is None or row.accuracy > (other.accuracy or 0.0):
                found[row.validation] = row
    return found


def _filtered(
    runs: list[Run], wanted: Filter, cost: str, marked: Collection[Key], pinned: Collection[Key]
) -> list[Run]:
    if not wanted:
        return runs
    front = fronts([BoardLine(run.row, (run,)) for run in runs], cost) if wanted.about_pareto else frozenset()
    best = max((run for run in runs if run.row.state == "finished"), key=lambda r: r.row.accuracy or 0.0, default=None)

    def properties(run: Run) -> set[str]:
        tests = {
            "marked": run.key in marked,
            "pinned": run.key in pinned,
            "pareto": run.key in front,
            "best": run is best,
        }
        return {name for name, holds in tests.items() if holds}

    return [run for run in runs if wanted.matches(Subject(run.row, run.trial.dataset, properties(run)))]


def fronts(lines: Iterable[BoardLine], cost: str) -> frozenset[Key]:
    """Keys of the lines on the Pareto front of their validation set."""
    return pareto_keys((line.row for line in lines), cost)


def order(row: Row, key: str, reverse: bool = False) -> tuple[Any, ...]:
    """Sort key: finished runs first, then known values, then the better ones, then the lower number."""
    value = row_value(row, key)
    rest = (row.study, row.number)
    if isinstance(value, float) and not math.isfinite(value):
        value = None
    if value is None:
        return (row.state != "finished", 2, 0, 0, *rest)
    if isinstance(value, str):
        text = value.casefold()
        return (row.state != "finished", 1, _descending(text) if reverse else text, 0, *rest)
    column = COLUMNS.get(key)
    sign = -1 if bool(column and column.best == "high") != reverse else 1
    tie = -(row.accuracy or 0.0) if key != "accuracy" else float(row.flops or 0)
    return (row.state != "finished", 0, sign * value, tie, *rest)


def _descending(text: str) -> tuple[int, ...]:
    """Sort key of a text in descending order."""
    return (*(-ord(letter) for letter in text), 1)


def _is_known(rows: list[Row], key: str) -> bool:
    """Whether a column has a value; much faster than `row_value` of each where it has none."""
    if key in COLUMNS and key != "tuned":
        return any(value is not None for value in map(attrgetter(key), rows))
    return any(row_value(row, key) not in (None, "{}") for row in rows)


def row_value(row: Row, key: str) -> Any:
    """The value that a column sorts by; None where it is unknown."""
    if key in ("rank", "gap"):
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
    """Everything but the seed: equal for two runs that differ in their seed only."""
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
    """One line a configuration: the mean over its finished seeds, with a 95 % t interval if there are two or more."""
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
        key: _mean([getattr(run.row, key) for run in done]) for key in ("accuracy", "loss", *COSTS, "speed", "gain")
    }
    values |= {"gain_low": None, "gain_high": None}
    accuracies = [run.row.accuracy for run in done if run.row.accuracy is not None]
    if len(accuracies) > 1:
        interval = sample_of_shares(accuracies)
        values |= {"low": interval.low, "high": interval.high}
    merged = row._replace(**values)
    # The line has the identity of its first run, so that its key stays the same while seeds finish.
    return BoardLine(merged._replace(trial=runs[0].row.trial, number=runs[0].row.number), tuple(runs))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# --- columns ------------------------------------------------------------------------------------------------------


def known_columns(runs: Iterable[Run]) -> list[str]:
    """All columns: the leaderboard's, the dashboard's own, and the hyperparameters searched in these runs."""
    tuned = sorted({key for run in runs for key in run.row.tuned})
    return [EXTRA[0], *COLUMNS, *EXTRA[1:], *(key for key in tuned if key not in COLUMNS)]
