"""Export of a study for other tools: CSV or Parquet tables of trials and events, and TensorBoard event files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from suite.errors import InputError
from suite.ranking.gains import board
from suite.ranking.leaderboard import Row, as_columns, as_csv, rank
from suite.spec import Event, Line
from suite.store.events import EventReader
from suite.store.outputs import check_folder, check_new_folder, write_file, writing
from suite.store.study import StudyDir
from suite.store.trial import TrialState

SCALARS = ("loss", "lr", "images_per_second", "accuracy")  # fields of events that become curves

Columns = Mapping[str, list[Any]]

Types = Mapping[str, set[type]]  # of each column's values other than None


def tables(study: StudyDir, to: Path, *, parquet: bool = False) -> tuple[int, int]:
    """Write the tables `trials` (a row a trial) and `events` (a row an event); returns their numbers of rows.

    Columns and their types are the same for every study, except those of tuned hyperparameters. Raises InputError
    where Parquet is asked for and pyarrow is not installed, and where the folder cannot be written.
    """
    check_folder(to)
    states = study.states()
    rows = rank(board(study))
    lines = [
        {"trial": s.id, "arm": s.trial.arm, "seq": line.seq, "time": line.time, **line.event.model_dump()}
        for s, line in _events(study, states)
    ]
    types = _event_types()
    events = {key: [line.get(key) for line in lines] for key in types}
    if parquet:
        of_rows = {name: _types(hint) for name, hint in get_type_hints(Row).items()}
        files = {
            "trials.parquet": _parquet(as_columns(rows), of_rows),
            "events.parquet": _parquet(events, types),
        }
    else:
        files = {"trials.csv": as_csv(rows), "events.csv": _csv(events)}
    for name, content in files.items():
        write_file(to / name, content)
    return len(rows), len(lines)


def _event_types() -> dict[str, set[type]]:
    """Columns of the table of events: the fields of all kinds of events."""
    found: dict[str, set[type]] = {"trial": {str}, "arm": {str}, "seq": {int}, "time": {float}}
    for model in get_args(get_args(Event)[0]):
        for name, field in model.model_fields.items():
            found[name] = found.get(name, set()) | _types(field.annotation)
    return found


def _types(annotation: Any) -> set[type]:
    """The plain types in it: float | None -> {float}"""
    inner = [kind for part in get_args(annotation) for kind in _types(part)]
    return {kind for kind in (annotation, *inner) if kind in (str, bool, int, float)}


def _csv(columns: Columns) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    return out.getvalue()


def _parquet(columns: Columns, types: Types) -> bytes:
    """A Parquet file with columns of the given types; other columns have the type that fits all of their values."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "Parquet files need pyarrow, which is not installed; `pip install 'mnist-suite[parquet]'` brings it. "
            "Without --parquet the same tables are written as CSV."
        ) from None
    known = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        kinds = types.get(name) or {type(value) for value in values if value is not None}
        kind = next(iter(kinds)) if len(kinds) == 1 else float if kinds == {int, float} else str
        arrays[name] = pyarrow.array([None if value is None else kind(value) for value in values], known[kind])
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), sink)
    return sink.getvalue()


def tensorboard(study: StudyDir, to: Path) -> tuple[int, int]:
    """Write a run for each trial, with its last training and its hyperparameters; returns the numbers of trials and
    events.

    Raises InputError where TensorBoard is not installed or the folder is not empty: a second export would be added
    to the event files of the first.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; `pip install mnist-suite[track]` brings it.") from None
    check_new_folder(to)
    states, events = study.states(), 0
    for state in states:
        with writing(to), SummaryWriter(str(to / state.id)) as writer:
            for line in _last_training([line for _, line in _events(study, [state])]):
                events += 1
                found = line.event.model_dump()
                for key in SCALARS:
                    if found.get(key) is not None:
                        name = f"{'validation' if found['kind'] == 'evaluated' else 'train'}/{key}"
                        writer.add_scalar(name, found[key], found["step"], walltime=line.time)
            facts: dict[str, Any] = {"arm": state.trial.arm, "seed": state.trial.seed, **state.trial.canonical_params}
            if state.best is not None:
                writer.add_hparams(facts, {"best/accuracy": state.best}, run_name=".")
    return len(states), events


def _last_training(lines: list[Line]) -> list[Line]:
    """What a trial told of its last training. A run of TensorBoard has one axis of steps, and every training of a trial
    begins at step 0."""
    told = [i for i, line in enumerate(lines) if line.event.kind in ("progress", "evaluated")]
    ends = [i for i, line in enumerate(lines) if line.event.kind == "paused" and told and i < told[-1]]
    first = ends[-1] if ends else -1
    return [lines[i] for i in told if i > first]


def _events(study: StudyDir, states: list[TrialState]) -> Iterator[tuple[TrialState, Line]]:
    for state in states:
        for line in EventReader(study.trial(state.id).events).poll():
            yield state, line
