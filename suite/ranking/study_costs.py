"""What a whole study cost: its search, its final training, and its share of what it stands on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from suite.store.study import StudyDir, arms, final_of, studies
from suite.store.trial import TrialState


@dataclass(frozen=True)
class Total:
    """A sum over trials that ended, finished or not. A trial that lost its worker left no cost: it is counted."""

    trials: int = 0
    unknown: int = 0  # trials without a cost
    wall_seconds: float = 0.0
    train_seconds: float = 0.0
    flops: float = 0.0  # training and feature extraction
    energy_joules: float | None = None  # None where no trial knows its energy
    energy_trials: int = 0  # trials that do
    peak_memory_bytes: int = 0  # of the largest trial


def total(states: Iterable[TrialState]) -> Total:
    """Add up trials."""
    records = [s.record for s in states if s.record is not None]
    costs = [r.cost for r in records if r.cost is not None]
    energies = [c.energy_joules for c in costs if c.energy_joules is not None]
    return Total(
        trials=len(records),
        unknown=len(records) - len(costs),
        wall_seconds=sum(c.wall_seconds for c in costs),
        train_seconds=sum(c.train_seconds for c in costs),
        flops=float(sum(c.training_flops + c.setup_flops for c in costs)),
        energy_joules=sum(energies) if energies else None,
        energy_trials=len(energies),
        peak_memory_bytes=max((c.peak_memory_bytes for c in costs), default=0),
    )


def study_costs(results: Path, study: StudyDir) -> dict[str, Any]:
    """Search, by outcome and by arm; final training; and pretraining, shared by all runs that stand on it."""
    states, final = study.states(), final_of(study).states()
    return {
        "search": asdict(total(states)),
        "by_state": {kind: asdict(total(s for s in states if s.state == kind)) for kind in kinds(states)},
        "by_arm": {arm: asdict(total(s for s in states if s.trial.arm == arm)) for arm in arms(states)},
        "final": asdict(total(final)),
        "pretraining": _pretraining(results, [*states, *final]),
    }


def kinds(states: Iterable[TrialState]) -> list[str]:
    return sorted({s.record.state for s in states if s.record is not None})


def source_of(state: TrialState) -> str | None:
    """The weights a trial stands on: 'pretrained', a path, or None."""
    return state.trial.weights.source if state.trial.weights else None


def _pretraining(results: Path, own: list[TrialState]) -> list[dict[str, Any]]:
    """For each trial of ours that others start from: its cost, who shares it, and this study's part."""
    everyone = [s for study in studies(results) for d in (study, final_of(study)) for s in d.states()]
    shares: list[dict[str, Any]] = []
    for source in sorted({s for state in own if (s := source_of(state))}):
        parts = Path(source).parts  # STUDY/trials/TRIAL/best.safetensors
        mine = sum(source_of(state) == source for state in own)
        if source == "pretrained" or Path(source).is_absolute() or len(parts) != 4:
            shares.append({"weights": source, "cost": None, "runs": mine, "runs_here": mine, "share": None})
            continue
        runs = max(mine, sum(source_of(state) == source for state in everyone))
        cost = asdict(total(s for s in StudyDir(results, parts[0]).states() if s.id == parts[2]))
        part = mine / runs
        keys = ("wall_seconds", "train_seconds", "flops", "energy_joules")
        share = {k: cost[k] * part if cost[k] is not None else None for k in keys}
        shares.append(
            {"weights": f"{parts[0]}/{parts[2]}", "cost": cost, "runs": runs, "runs_here": mine, "share": share}
        )
    return shares
