"""Repeats a trial from its trial.json and says whether it comes out the same, bit for bit."""

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

SAME = (
    "state",
    "reason",
    "accuracy",
    "loss",
    "epoch",
    "steps",
    "curve",
    "artifact_sha256",
)  # of a record: what must agree

OnStatus = Callable[[Path, Status], None]  # where the repeat lies, and how it stands


def rerun(results: Path, reference: str, *, stop: Stop, on_status: OnStatus = lambda *_: None) -> dict[str, Any]:
    """Train STUDY/TRIAL again in a temporary place and compare. Raises InputError.

    The answer says `identical`, what `differs` as (before, now), and which parts of the `surroundings` (code,
    packages, hardware) have changed since, as these are what a difference comes from.
    """
    study_name, trial_id = split_reference(reference)
    study = open_study(results, study_name)
    state = find_trial(study, trial_id)
    before = state.record
    if before is None or before.state == "failed":
        raise InputError(
            f"Trial {study.name}/{state.id} is {state.state}: only finished and pruned trials can be compared."
        )
    # A pruned trial was ended from outside, at its last epoch; one that diverged ends by itself.
    prune_after = before.curve[-1][0] if before.state == "pruned" and before.curve else None
    with tempfile.TemporaryDirectory(prefix="mnist-suite-rerun-") as temporary:
        directory = StudyDir(Path(temporary), study.name)
        for status in replay([state.trial], directory, results, stop=stop, prune_after=prune_after):
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


def compare(before: Record, now: Record) -> dict[str, Any]:
    """Two records of one trial: identical or not, and where they differ."""
    differs = {
        key: (getattr(before, key), getattr(now, key)) for key in SAME if getattr(before, key) != getattr(now, key)
    }
    return {
        "identical": not differs,
        "differs": differs,
        "surroundings": surroundings(before.provenance, now.provenance),
    }


def surroundings(before: Provenance | None, now: Provenance | None) -> dict[str, tuple[Any, Any]]:
    """Which facts of code, packages and hardware have changed between two records."""
    if before is None or now is None:
        return {}
    old, new = before.model_dump(exclude={"command", "host"}), now.model_dump(exclude={"command", "host"})
    old |= {f"packages.{k}": v for k, v in old.pop("packages").items()}
    new |= {f"packages.{k}": v for k, v in new.pop("packages").items()}
    return {k: (old.get(k), new.get(k)) for k in sorted(old | new) if old.get(k) != new.get(k)}
