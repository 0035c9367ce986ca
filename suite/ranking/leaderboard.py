"""The leaderboard: trial states become rows, rows are ranked and become text. Pure functions; no file is read here.

A column is declared in one place: a field of `Row` whose annotation carries a `Column`. The table, `--sort`, CSV,
JSON, Parquet, the filter of the dashboard and its table follow from that declaration.
"""

# Without `from __future__ import annotations`: the fields' annotations hold objects that are used at run time.
import csv
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

from suite.errors import InputError, printable
from suite.ranking.formats import count, duration, hyperparameters, percent, points, size
from suite.ranking.statistics import wilson
from suite.spec import AS_TRAINED, Trial
from suite.store.liveness import STALE_SECONDS
from suite.store.trial import TrialState

NOTHING: Mapping[str, Any] = MappingProxyType({})

ValidationSet = tuple[str, str, int | None]  # data set, SHA-256 of its training files, limit


@dataclass(frozen=True)
class Column:
    """How a field of `Row` is shown and sorted, and where its value comes from."""

    title: str
    text: Callable[[Any], str] = str  # how a known value is shown
    best: Literal["high", "low", ""] = ""  # which end is good; "": not a quality
    cost: bool = False  # whether it is a cost: Pareto fronts are drawn against it
    read: Callable[[TrialState], Any] | None = None  # the value, None where unknown; without it `row` or `rank` sets it
    key: str = ""  # the field's name, filled in below
    textual: bool = False  # whether the values are text, filled in below


def _from_cost(name: str, before: str = "") -> Callable[[TrialState], Any]:
    """Reads a field of the record's cost, or `before` of the events ("progress.seconds") while there is no cost."""
    event, _, field = before.partition(".")

    def read(state: TrialState) -> Any:
        cost = state.record.cost if state.record else None
        return getattr(cost, name) if cost else getattr(getattr(state, event, None), field, None)

    return read


def _cost(title: str, text: Callable[[Any], str], name: str, before: str = "") -> Column:
    """The column of a cost."""
    return Column(title, text, "low", cost=True, read=_from_cost(name, before))


def _loss(state: TrialState) -> float | None:
    return state.record.loss if state.record else None


def _balanced(state: TrialState) -> float | None:
    return state.record.balanced_accuracy if state.record else None


def _epoch(state: TrialState) -> float | None:
    return state.record.epoch if state.record else state.curve[-1][0] if state.curve else None


def _tuned(state: TrialState) -> Mapping[str, Any]:
    """The hyperparameters that were searched; of a training outside a search those that it is known by."""
    trial = state.trial
    if trial.params:
        return trial.canonical_params
    if trial.strategy.kind == "head" and trial.strategy.head.kind in ("ridge", "logreg", "knn"):  # solved
        return {"head": trial.strategy.head.kind}
    return {name: getattr(trial.recipe, name) for name in ("lr", "batch_size", "epochs")}


_speed = _from_cost("images_per_second", "progress.images_per_second")


def parent_of(state: TrialState) -> str | None:
    """STUDY/TRIAL that the trial started from, else that it learned from; other sources as they are named."""
    trial = state.trial
    given = trial.weights or (trial.teacher.weights if trial.teacher else None)
    if given is None:
        return None
    parts = given.source.split("/")  # .../STUDY/trials/TRIAL/best.safetensors
    return f"{parts[-4]}/{parts[-2]}" if len(parts) >= 4 and parts[-3] == "trials" else given.source


class Row(NamedTuple):
    """One trial on the leaderboard; None is shown as '-'. Fields without a `Column` are for JSON and for drawing.

    A tuple, because there are thousands: a frozen dataclass takes three times as long to make, five to change.
    """

    study: Annotated[str, Column("study")]
    trial: str  # id
    number: Annotated[int, Column("trial", "{:04d}".format)]
    arm: Annotated[str, Column("arm")]
    backbone: Annotated[str, Column("backbone")]
    strategy: Annotated[str, Column("strategy")]
    state: Annotated[str, Column("state")]  # as `store.trial.State`, or "stale"

    # Best on validation: optimistic, since the search selects by it. Then its 95 % Wilson interval.
    accuracy: Annotated[float | None, Column("val acc", percent, "high", read=lambda s: s.best)] = None
    low: Annotated[float | None, Column("95% low", percent, "high")] = None
    high: Annotated[float | None, Column("95% high", percent, "high")] = None
    balanced: Annotated[float | None, Column("balanced", percent, "high", read=_balanced)] = None  # mean recall
    # On test after `evaluate --final`, with a 95 % interval: over fresh seeds, or of the images of one seed.
    test: Annotated[float | None, Column("test acc", percent, "high")] = None
    test_low: float | None = None
    test_high: float | None = None
    # Validation accuracy less that of the arm's default recipe, with a 95 % interval where both have finished. The
    # default recipe itself has a gain of 0 and no interval.
    gain: Annotated[float | None, Column("gain", points, "high")] = None
    gain_low: float | None = None
    gain_high: float | None = None
    # After `evaluate --shift`: the mean over corruptions of the validation images, and characters drawn in fonts.
    shift: Annotated[float | None, Column("shift acc", percent, "high")] = None
    fonts: Annotated[float | None, Column("font acc", percent, "high")] = None
    loss: Annotated[float | None, Column("val loss", "{:.4f}".format, "low", read=_loss)] = None
    epoch: Annotated[float | None, Column("epoch", "{:g}".format, read=_epoch)] = None
    curve: tuple[float, ...] = ()  # validation accuracies
    epochs: tuple[float, ...] = ()  # that they were measured after

    # Forward FLOPs are per image, times in seconds, memory in bytes, energy in joules; latency is for one image.
    flops: Annotated[int | None, _cost("FLOPs/img", count, "forward_flops", "started.forward_flops")] = None
    params: Annotated[int | None, _cost("params", count, "parameters", "started.parameters")] = None
    trainable: Annotated[int | None, _cost("trainable", count, "trainable", "started.trainable")] = None
    train_flops: Annotated[int | None, _cost("train FLOPs", count, "training_flops")] = None
    seconds: Annotated[float | None, _cost("train time", duration, "train_seconds", "progress.seconds")] = None
    wall: Annotated[float | None, _cost("wall time", duration, "wall_seconds")] = None
    speed: Annotated[float | None, Column("img/s", count, "high", read=_speed)] = None
    memory: Annotated[int | None, _cost("peak mem", size, "peak_memory_bytes")] = None
    energy: Annotated[float | None, _cost("energy", lambda v: f"{count(v)}J", "energy_joules")] = None
    energy_source: str | None = None
    latency: Annotated[float | None, _cost("latency", duration, "latency_seconds")] = None
    latency_256: float | None = None  # seconds for 256 images at once
    file: Annotated[int | None, _cost("file", size, "file_bytes")] = None  # of the trained weights
    # Of the last export in that format: seconds for one picture, accuracy on validation, bytes of the file.
    onnx_latency: Annotated[float | None, Column("onnx b1", duration, "low", cost=True)] = None
    int8: Annotated[float | None, Column("int8 acc", percent, "high")] = None
    int8_latency: Annotated[float | None, Column("int8 b1", duration, "low", cost=True)] = None
    int8_size: Annotated[int | None, Column("int8 size", size, "low", cost=True)] = None

    tuned: Annotated[Mapping[str, Any], Column("tuned", hyperparameters, read=_tuned)] = NOTHING
    reason: Annotated[str | None, Column("reason", read=lambda s: s.reason)] = None
    parent: Annotated[str | None, Column("parent", read=parent_of)] = None
    dataset: Annotated[str, Column("data set", read=lambda s: s.trial.dataset)] = ""
    tags: Annotated[str | None, Column("tags")] = None  # what people noted, see `store.notes`; separated by blanks
    note: Annotated[str | None, Column("note")] = None
    archived: bool = False
    best: Annotated[str | None, Column("best of arm")] = None  # of the best of its arm: see `gains.board`
    seed: Annotated[int, Column("seed", read=lambda s: s.trial.seed)] = 0
    validation: ValidationSet = ("", "", None)  # accuracies can be compared only where this is the same
    pareto: bool = False
    rank: Annotated[int | None, Column("#")] = None  # this and `pareto` stay last: see the function `rank`


def _columns() -> dict[str, Column]:
    """Columns by field name, in the order of the fields, after rank and number."""
    found: dict[str, Column] = {}
    for name, hint in get_type_hints(Row, include_extras=True).items():
        for column in getattr(hint, "__metadata__", ()):
            kind = hint.__origin__
            found[name] = replace(column, key=name, textual=kind is str or kind == str | None)
    return {name: found[name] for name in dict.fromkeys(("rank", "number", *found))}


COLUMNS: dict[str, Column] = _columns()

_READ = {key: column.read for key, column in COLUMNS.items() if column.read is not None}

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

EXPORTED = ("int8", "onnx_latency", "int8_latency", "int8_size")  # shown unasked where a row has them

UNEVEN = 0.005  # difference between accuracy and balanced accuracy from which the latter is shown unasked


def default_columns(rows: Iterable[Row]) -> tuple[str, ...]:
    """`DEFAULT`, and beside accuracy what more there is to say of it.

    That is balanced accuracy where classes are so uneven that the two differ, `best` where a row has it, parent and
    size of the file where models were compressed, and what is known of exports.
    """
    uneven = marked = compressed = False
    exported: set[str] = set()
    for r in rows:
        uneven |= r.balanced is not None and r.accuracy is not None and abs(r.balanced - r.accuracy) > UNEVEN
        marked |= r.best is not None
        compressed |= r.strategy in AS_TRAINED
        exported |= {key for key in EXPORTED if getattr(r, key) is not None}
    place = DEFAULT.index("accuracy") + 1
    more = [*["balanced"] * uneven, *["best"] * marked, *["parent", "file"] * compressed]
    more += [key for key in EXPORTED if key in exported]
    return (*DEFAULT[:place], *more, *DEFAULT[place:])


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
    """The cells of a column as people read them; '-' where nothing is known."""
    shown = column(key).text
    if key == "rank":
        return ["-" if r.rank is None else f"*{r.rank}" if r.pareto else str(r.rank) for r in rows]
    values = map(attrgetter(key), rows)
    if key == "tuned":
        cells = [shown(value) for value in values]  # a mapping has no hash
    else:
        known: dict[Any, str] = {None: "-"}  # arms, states and models repeat, and so do their costs
        cells = [known[value] if value in known else known.setdefault(value, shown(value)) for value in values]
    if "".join(cells).isprintable():
        return cells
    return [printable(cell.replace("\n", " ")) for cell in cells]


def validation_set(trial: Trial) -> ValidationSet:
    """Identity of the images that the trial's validation accuracy is measured on.

    `data.splits` draws them from the training files by class with a fixed seed and cuts them to `limit`; neither the
    share of training labels nor the seed of the trial has any influence on them.
    """
    return trial.dataset, trial.data_hash, trial.limit


def row(study: str, state: TrialState, *, now: float | None = None) -> Row:
    """One trial's row, unranked. `now` is the present by the clock that stamps the trial's events, in seconds since
    1970: `liveness.Pulse.present`. None: by this machine's."""
    trial, record = state.trial, state.record
    cost = record.cost if record else None
    label: str = state.state
    if label == "running" and (time.time() if now is None else now) - state.last > STALE_SECONDS:
        label = "stale"
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
        low=low,
        high=high,
        curve=tuple([value for _, value in state.curve]),
        epochs=tuple([epoch for epoch, _ in state.curve]),
        energy_source=cost.energy_source if cost else None,
        latency_256=cost.latency_256_seconds if cost else None,
        validation=validation_set(trial),
        **{key: read(state) for key, read in _READ.items()},
    )


def rank(rows: Iterable[Row], *, sort: str = "accuracy", cost: str | None = None) -> list[Row]:
    """Rows in order with ranks and Pareto marks, those of one validation set after those of another.

    Within a validation set the best row is first. Finished trials have ranks; all others follow them. A row is on the
    Pareto front when no finished row of the same validation set is at least as accurate at no more `cost` and better in
    one of the two. Without `cost` it is `sort` where that is a cost, else FLOPs. Raises InputError for an unknown
    column and for a `cost` that is none.
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

    ranked: list[Row] = []
    for group in by_validation_set(rows).values():
        group.sort(key=order)
        front = {(r.study, r.trial) for r in pareto(group, cost)}
        for place, r in enumerate(group, 1):
            finished = r.state == "finished"
            marks = (finished and (r.study, r.trial) in front, place if finished else None)
            ranked.append(Row._make(r[:-2] + marks))  # pareto and rank; three times as fast as `_replace`
    return ranked


def by_validation_set(rows: Iterable[Row]) -> dict[ValidationSet, list[Row]]:
    """Rows in groups of those whose accuracies can be compared, by data set; within it the larger group first."""
    groups: dict[ValidationSet, list[Row]] = {}
    for r in rows:
        groups.setdefault(r.validation, []).append(r)
    return {group: groups[group] for group in sorted(groups, key=lambda g: (g[0], -len(groups[g]), str(g)))}


def name_of(group: ValidationSet) -> str:
    """A validation set in words, for example "mnist (1a2b3c4d), limit 500"; the hash is that of the training files."""
    dataset, data_hash, limit = group
    return f"{dataset} ({data_hash[:8]}){f', limit {limit}' if limit is not None else ''}"


def first_of_each(rows: Iterable[Row], top: int | None) -> list[Row]:
    """The first `top` rows of every validation set; all where `top` is None."""
    return [r for group in by_validation_set(rows).values() for r in group[:top]]


def pareto_keys(rows: Iterable[Row], cost: str) -> frozenset[tuple[str, str]]:
    """(study, trial) of the rows on the Pareto front of their validation set."""
    fronts = [pareto(group, cost) for group in by_validation_set(rows).values()]
    return frozenset((r.study, r.trial) for front in fronts for r in front)


def pareto(rows: Iterable[Row], cost: str) -> list[Row]:
    """The finished rows that no other one beats in accuracy at the same or a lower cost, cheapest first.

    The rows are of one validation set; `by_validation_set` divides others.
    """
    spent = attrgetter(cost)
    best: dict[float, Row] = {}  # by cost
    for r in rows:
        if r.state == "finished" and r.accuracy is not None and (value := spent(r)) is not None:
            other = best.get(value)
            if other is None or (r.accuracy, -r.number) > (other.accuracy, -other.number):
                best[value] = r
    front: list[Row] = []
    highest = -1.0
    for value in sorted(best):
        r = best[value]
        if r.accuracy is not None and r.accuracy > highest:
            highest = r.accuracy
            front.append(r)
    return front


def as_dict(row: Row) -> dict[str, Any]:
    """Everything known of a row, for JSON."""
    found = {**row._asdict(), "curve": list(row.curve), "epochs": list(row.epochs), "tuned": dict(row.tuned)}
    _, found["data_hash"], found["limit"] = found.pop("validation")
    return found


def as_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Values by column, and a column a tuned hyperparameter; None where a row lacks it. For CSV and Parquet."""
    bounds = ("test_low", "test_high", "gain_low", "gain_high")
    keys = ["trial", *COLUMNS, *bounds, "energy_source", "latency_256", "archived", "pareto"]
    found = {"trial_id" if key == "trial" else key: [getattr(r, key) for r in rows] for key in keys if key != "tuned"}
    found |= {"data_hash": [r.validation[1] for r in rows], "limit": [r.validation[2] for r in rows]}
    return found | {name: [r.tuned.get(name) for r in rows] for name in sorted({k for r in rows for k in r.tuned})}


def as_csv(rows: Iterable[Row]) -> str:
    """All columns, a line a row; True is 1, an unknown value is empty."""
    out = io.StringIO()
    columns = as_columns(list(rows))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([printable(key) for key in columns])
    for values in zip(*columns.values()):
        cells = ["" if v is None else int(v) if isinstance(v, bool) else v for v in values]
        writer.writerow([printable(cell) if isinstance(cell, str) else cell for cell in cells])
    return out.getvalue()


def as_markdown(rows: Iterable[Row], keys: Sequence[str] = DEFAULT) -> str:
    """A Markdown table of the given columns; where the rows are of several validation sets, one a set under its
    name."""
    groups = by_validation_set(rows)
    tables = [_markdown_table(group, keys) for group in groups.values()] or [_markdown_table([], keys)]
    if len(groups) < 2:
        return tables[0]
    named = [f"Data set {printable(name_of(group))}\n\n{table}" for group, table in zip(groups, tables, strict=True)]
    return "\n".join(named)


def _markdown_table(rows: Sequence[Row], keys: Sequence[str]) -> str:
    lines = [
        "| " + " | ".join(column(k).title for k in keys) + " |",
        "| " + " | ".join("---" for _ in keys) + " |",
    ]
    columns = [[cell.replace("|", "\\|") for cell in texts(rows, key)] for key in keys]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"
