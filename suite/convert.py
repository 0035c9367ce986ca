"""A study for other tools: CSV tables of trials and events, and TensorBoard's event files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suite import leaderboard
from suite.errors import InputError
from suite.spec import Line
from suite.store import EventReader, StudyDir, TrialState, write_atomic

SCALARS = ("loss", "lr", "images_per_second", "accuracy")  # of events, as far as they have them


def tables(study: StudyDir, to: Path) -> tuple[int, int]:
    """Write trials.csv, one row a trial, and events.csv, one row an event; returns how many of each."""
    to.mkdir(parents=True, exist_ok=True)
    states = study.states()
    rows = leaderboard.rank([leaderboard.row(study.name, state) for state in states])
    write_atomic(to / "trials.csv", leaderboard.as_csv(rows))
    lines = [
        {"trial": s.id, "arm": s.trial.arm, "seq": line.seq, "time": line.time, **line.event.model_dump()}
        for s, line in _events(study, states)
    ]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    with open(to / "events.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, keys or ["trial"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return len(states), len(lines)


def tensorboard(study: StudyDir, to: Path) -> tuple[int, int]:
    """Write one run a trial, with its hyperparameters; returns how many trials and events.

    Raises InputError where TensorBoard is not installed or the folder holds something: event files only grow.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; `pip install mnist-suite[track]` brings it.") from None
    if to.exists() and any(to.iterdir()):
        raise InputError(f"{to} already holds something; name a new or empty folder with --to DIR.")
    states, events = study.states(), 0
    for state in states:
        with SummaryWriter(str(to / state.id)) as writer:
            for _, line in _events(study, [state]):
                events += 1
                found = line.event.model_dump()
                for key in SCALARS:
                    if found.get(key) is not None:
                        name = f"{'validation' if found['kind'] == 'evaluated' else 'train'}/{key}"
                        writer.add_scalar(name, found[key], found["step"], walltime=line.time)
            facts: dict[str, Any] = {"arm": state.trial.arm, "seed": state.trial.seed, **state.trial.params}
            if state.best is not None:
                writer.add_hparams(facts, {"best/accuracy": state.best}, run_name=".")
    return len(states), events


def _events(study: StudyDir, states: list[TrialState]) -> Iterator[tuple[TrialState, Line]]:
    for state in states:
        for line in EventReader(study.trial(state.id).events).poll():
            yield state, line
