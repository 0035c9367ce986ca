"""Repeats a trial from its trial.json and compares the two records bit for bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suite.errors import InputError
from suite.execution.replay import replay
from suite.execution.stop import Stop
from suite.spec import Provenance, Record, Status
from suite.store.study import StudyDir, find_trial, open_study, split_reference

# Fields of a record that a repeat must reproduce.
REPRODUCED = ("state", "reason", "accuracy", "loss", "epoch", "steps", "curve", "rungs", "artifact_sha256")

OnStatus = Callable[[Path, Status], None]  # called with the repeat's results directory and its status


def rerun(results: Path, reference: str, *, stop: Stop, on_status: OnStatus = lambda *_: None) -> dict[str, Any]:
    """Train STUDY/TRIAL again in a temporary directory and compare the two records.

    Returns the trial's name, seed and new accuracy, and what `compare` returns.
    Raises InputError where the trial is unknown, has not ended or failed, or where the repeat was stopped.
    """
    study_name, trial_id = split_reference(reference)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    before = state.record
    if before is None or before.state == "failed":
        raise InputError(
            f"Trial {study.name}/{state.id} is {state.state}: only finished and pruned trials can be compared."
        )
    pruned = before if _ended_by_the_search(before) else None
    with tempfile.TemporaryDirectory(prefix="mnist-suite-rerun-") as temporary:
        directory = StudyDir(Path(temporary), study.name)
        for status in replay([state.trial], directory, results, stop=stop, pruned=pruned):
            on_status(Path(temporary), status)
        now = directory.states()[0].record
    if now is None:
        raise InputError(f"The repeat of {study.name}/{state.id} was stopped before its end.")
    return {
        "trial": f"{study.name}/{state.id}",
        "seed": state.trial.seed,
        "accuracy": now.accuracy,
        **compare(before, now),
    }


def _ended_by_the_search(record: Record) -> bool:
    """Whether a search pruned the trial. One that diverged or costs too much ends by itself."""
    if record.state != "pruned" or not record.curve or (record.reason or "").startswith("diverged: "):
        return False
    return not record.rungs or record.curve[-1][0] == record.rungs[-1][0]


def compare(before: Record, now: Record) -> dict[str, Any]:
    """Compare two records of one trial.

    Returns `identical`, the fields in which the records differ as (before, now), and what changed of their
    `surroundings` (code, packages, hardware), where differences come from.
    """
    pairs = {key: (getattr(before, key), getattr(now, key)) for key in REPRODUCED}
    differs = {key: (old, new) for key, (old, new) in pairs.items() if old != new}
    return {
        "identical": not differs,
        "differs": differs,
        "surroundings": surroundings(before.provenance, now.provenance),
    }


def surroundings(before: Provenance | None, now: Provenance | None) -> dict[str, tuple[Any, Any]]:
    """Facts of code, packages and hardware that differ between two records, as (before, now)."""
    if before is None or now is None:
        return {}
    old, new = before.model_dump(exclude={"command", "host"}), now.model_dump(exclude={"command", "host"})
    old |= {f"packages.{k}": v for k, v in old.pop("packages").items()}
    new |= {f"packages.{k}": v for k, v in new.pop("packages").items()}
    return {k: (old.get(k), new.get(k)) for k in sorted(old | new) if old.get(k) != new.get(k)}
