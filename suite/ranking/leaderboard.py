"""Ranking: from what the files say to rows, and from rows to text. Pure functions, nothing is read here."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from suite.errors import InputError, printable
from suite.ranking.statistics import wilson
from suite.store.study import STALE_SECONDS
from suite.store.trial import TrialState

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Row(NamedTuple):
    """One trial on the leaderboard. Costs are None until they are known.

    A tuple, because there are thousands: a frozen dataclass takes three times as long to make, five to change.
    """

    study: str
    trial: str
    number: int
    arm: str
    backbone: str
    strategy: str
    state: str  # as in store.State, or "stale"
    accuracy: float | None = None  # best on validation: optimistic, the search chose by it
    low: float | None = None  # 95 % Wilson interval
    high: float | None = None
    loss: float | None = None
    epoch: float | None = None
    curve: tuple[float, ...] = ()  # validation accuracies
    epochs: tuple[float, ...] = ()  # that they were measured after
    params: int | None = None
    trainable: int | None = None
    flops: int | None = None  # forward, per image
    train_flops: int | None = None
    seconds: float | None = None  # of training
    wall: float | None = None  # seconds, all attempts
    speed: float | None = None  # images per second in training
    memory: int | None = None  # peak, bytes
    energy: float | None = None  # joules
    energy_source: str | None = None
    latency: float | None = None  # seconds for one image
    latency_256: float | None = None  # for 256 at once
    tuned: Mapping[str, Any] = NOTHING
    reason: str | None = None
    seed: int = 0
    pareto: bool = False
    rank: int | None = None


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    text: Callable[[Any], str]
    best: Literal["high", "low", ""] = ""  # which end is good; "": not a quality
    cost: bool = False


def _number(value: float) -> str:
    """1234567 -> '1.23M'; three significant digits, for counts."""
    for power, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{letter}"
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    for power, letter in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= power:
            return f"{value / power:.3g} {letter}"
    return f"{value:.0f} B"


def _seconds(value: float) -> str:
    if value >= 3600:
        return f"{value / 3600:.1f} h"
    if value >= 120:
        return f"{value / 60:.1f} min"
    if value >= 0.1:
        return f"{value:.1f} s"
    return f"{value * 1e3:.2g} ms" if value >= 1e-4 else f"{value * 1e6:.2g} µs"


def _tuned(values: Mapping[str, Any]) -> str:
    return " ".join(
        [
            f"{k.rpartition('.')[2]}={v:.3g}" if isinstance(v, float) else f"{k.rpartition('.')[2]}={v}"
            for k, v in values.items()
        ]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


COLUMNS: dict[str, Column] = {
    c.key: c
    for c in (
        Column("rank", "#", str),
        Column("number", "trial", lambda v: f"{v:04d}"),
        Column("study", "study", str),
        Column("arm", "arm", str),
        Column("backbone", "backbone", str),
        Column("strategy", "strategy", str),
        Column("state", "state", str),
        Column("accuracy", "val acc", _percent, "high"),
        Column("low", "95% low", _percent, "high"),
        Column("high", "95% high", _percent, "high"),
        Column("loss", "val loss", lambda v: f"{v:.4f}", "low"),
        Column("epoch", "epoch", lambda v: f"{v:g}"),
        Column("flops", "FLOPs/img", _number, "low", cost=True),
        Column("params", "params", _number, "low", cost=True),
        Column("trainable", "trainable", _number, "low", cost=True),
        Column("train_flops", "train FLOPs", _number, "low", cost=True),
        Column("seconds", "train time", _seconds, "low", cost=True),
        Column("wall", "wall time", _seconds, "low", cost=True),
        Column("speed", "img/s", _number, "high"),
        Column("memory", "peak mem", _bytes, "low", cost=True),
        Column("energy", "energy", lambda v: f"{_number(v)}J", "low", cost=True),
        Column("latency", "latency", _seconds, "low", cost=True),
        Column("tuned", "tuned", _tuned),
        Column("reason", "reason", str),
        Column("seed", "seed", str),
    )
}

DEFAULT: tuple[str, ...] = (
    "rank",
    "number",
    "arm",
    "state",
    "accuracy",
    "flops",
    "params",
    "train_flops",
    "seconds",
    "energy",
    "tuned",
)

COSTS = tuple(key for key, column in COLUMNS.items() if column.cost)


def column(key: str) -> Column:
    """A column by name. Raises InputError naming the known ones."""
    if key not in COLUMNS:
        raise InputError(f"There is no column '{key}'; take one of: {', '.join(COLUMNS)}.")
    return COLUMNS[key]


def text(row: Row, key: str) -> str:
    """A cell as people read it; '-' where nothing is known."""
    return texts([row], key)[0]


def texts(rows: Iterable[Row], key: str) -> list[str]:
    """A column as people read it; '-' where nothing is known."""
    shown = column(key).text
    if key == "rank":
        return ["-" if r.rank is None else f"*{r.rank}" if r.pareto else str(r.rank) for r in rows]
    values = map(attrgetter(key), rows)
    if key == "tuned":
        cells = [shown(value) if value else "-" for value in values]
    else:
        known: dict[Any, str] = {None: "-"}  # a column repeats itself: arms, states, models and so their costs
        cells = [known[value] if value in known else known.setdefault(value, shown(value)) for value in values]
    if "".join(cells).isprintable():
        return cells
    return [printable(cell.replace("\n", " ")) for cell in cells]


def row(study: str, state: TrialState, *, now: float | None = None) -> Row:
    """One trial's row, unranked."""
    trial, record, started, progress = state.trial, state.record, state.started, state.progress
    label: str = state.state
    if label == "running" and (now or time.time()) - state.last > STALE_SECONDS:
        label = "stale"
    accuracy = state.best
    cost = record.cost if record is not None else None
    known = cost or started
    low = high = None
    if record is not None and record.accuracy is not None and record.images:
        low, high = wilson(record.accuracy, record.images)
    return Row(
        study=study,
        trial=state.id,
        number=trial.number,
        arm=trial.arm,
        backbone=trial.backbone,
        strategy=trial.strategy.kind,
        state=label,
        accuracy=accuracy,
        low=low,
        high=high,
        loss=record.loss if record else None,
        epoch=record.epoch if record else state.curve[-1][0] if state.curve else None,
        curve=tuple([value for _, value in state.curve]),
        epochs=tuple([epoch for epoch, _ in state.curve]),
        params=known.parameters if known else None,
        trainable=known.trainable if known else None,
        flops=known.forward_flops if known else None,
        train_flops=cost.training_flops if cost else None,
        seconds=cost.train_seconds if cost else progress.seconds if progress else None,
        wall=cost.wall_seconds if cost else None,
        speed=cost.images_per_second if cost else progress.images_per_second if progress else None,
        memory=cost.peak_memory_bytes if cost else None,
        energy=cost.energy_joules if cost else None,
        energy_source=cost.energy_source if cost else None,
        latency=cost.latency_seconds if cost else None,
        latency_256=cost.latency_256_seconds if cost else None,
        tuned=trial.canonical_params,
        reason=state.reason,
        seed=trial.seed,
    )


def rank(rows: Iterable[Row], *, sort: str = "accuracy", cost: str | None = None) -> list[Row]:
    """Rows in order, the best first, with ranks and Pareto marks.

    Finished trials take ranks; the others follow them, so nothing is hidden. A row is on the Pareto front
    when no finished one is at least as accurate at no more `cost` and better in one of the two.
    """
    chosen = column(sort)
    cost = cost or (sort if chosen.cost else "flops")
    if not column(cost).cost:
        raise InputError(f"'{cost}' is not a cost; take one of: {', '.join(COSTS)}.")
    sign = -1 if chosen.best == "high" else 1

    def order(r: Row) -> tuple[Any, ...]:
        value = getattr(r, sort)
        if isinstance(value, int | float) and math.isfinite(value):
            tie = -(r.accuracy or 0.0) if sort != "accuracy" else r.flops or 0
            return (r.state != "finished", 0, sign * value, tie, r.study, r.number)
        if value is None or isinstance(value, float):
            return (r.state != "finished", 1, 0, 0.0, r.study, r.number)
        return (r.state != "finished", 0, str(value), 0.0, r.study, r.number)

    ordered = sorted(rows, key=order)
    front = {(r.study, r.trial) for r in pareto(ordered, cost)}
    ranked: list[Row] = []
    for place, r in enumerate(ordered, 1):
        finished = r.state == "finished"
        marks = (finished and (r.study, r.trial) in front, place if finished else None)
        ranked.append(Row._make(r[:-2] + marks))  # pareto and rank, the last two; a third of what _replace takes
    return ranked


def pareto(rows: Iterable[Row], cost: str) -> list[Row]:
    """The finished rows that nothing beats in accuracy at the same or a lower cost, cheapest first."""
    spent = attrgetter(cost)
    best: dict[float, Row] = {}  # by cost
    for r in rows:
        if r.state == "finished" and r.accuracy is not None and (value := spent(r)) is not None:
            rival = best.get(value)
            if rival is None or (r.accuracy, -r.number) > (rival.accuracy, -rival.number):
                best[value] = r
    front: list[Row] = []
    most = -1.0
    for value in sorted(best):
        r = best[value]
        if r.accuracy is not None and r.accuracy > most:
            most = r.accuracy
            front.append(r)
    return front


def as_dict(row: Row) -> dict[str, Any]:
    """Everything known of a row, for JSON."""
    return {**row._asdict(), "curve": list(row.curve), "epochs": list(row.epochs), "tuned": dict(row.tuned)}


def as_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """A column a fact and tuned value, None where a row lacks it, for tables of other programs."""
    keys = ["trial", *COLUMNS, "energy_source", "latency_256", "pareto"]
    found = {"trial_id" if key == "trial" else key: [getattr(r, key) for r in rows] for key in keys if key != "tuned"}
    return found | {name: [r.tuned.get(name) for r in rows] for name in sorted({k for r in rows for k in r.tuned})}


def as_csv(rows: Iterable[Row]) -> str:
    out = io.StringIO()
    columns = as_columns(list(rows))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([printable(key) for key in columns])
    for values in zip(*columns.values()):
        cells = ["" if v is None else int(v) if isinstance(v, bool) else v for v in values]
        writer.writerow([printable(cell) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def as_markdown(rows: Iterable[Row], keys: Sequence[str] = DEFAULT) -> str:
    lines = [
        "| " + " | ".join(column(k).title for k in keys) + " |",
        "| " + " | ".join("---" for _ in keys) + " |",
    ]
    rows = list(rows)
    columns = [[cell.replace("|", "\\|") for cell in texts(rows, key)] for key in keys]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"
