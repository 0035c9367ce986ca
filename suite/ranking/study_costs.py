"""What a whole study cost: its search, its finalists, its final training, and its share of pretraining."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from suite.store.study import StudyDir, arms, final_of, finalists_of, studies
from suite.store.trial import TrialState


@dataclass(frozen=True)
class Total:
    """A sum over trials that ended, finished or not. A trial that lost its worker has no cost, but is counted."""

    trials: int = 0
    unknown: int = 0  # trials without a cost
    wall_seconds: float = 0.0
    train_seconds: float = 0.0
    flops: float = 0.0  # training and feature extraction
    energy_joules: float | None = None  # None where no trial measured it
    energy_trials: int = 0  # trials that did
    peak_memory_bytes: int = 0  # of the largest trial


@dataclass(frozen=True)
class Share:
    """This study's part of the cost of a pretraining."""

    wall_seconds: float
    train_seconds: float
    flops: float
    energy_joules: float | None


@dataclass(frozen=True)
class Pretraining:
    """Weights that runs of the study start from or learn from."""

    weights: str  # STUDY/TRIAL, or where they come from where that is no trial of ours
    cost: Total | None  # None: not known
    runs: int  # of all studies that start or learn from them
    runs_here: int
    share: Share | None  # cost * runs_here / runs


@dataclass(frozen=True)
class StudyCosts:
    search: Total
    by_state: dict[str, Total]  # of the search
    by_arm: dict[str, Total]  # of the search
    finalists: Total
    final: Total
    pretraining: tuple[Pretraining, ...]


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


def study_costs(results: Path, study: StudyDir) -> StudyCosts:
    """Add up a study: the search by outcome and by arm, the new trainings, and the shares of pretraining."""
    states, finalists, final = (place.states() for place in (study, finalists_of(study), final_of(study)))
    kinds = sorted({s.record.state for s in states if s.record is not None})
    return StudyCosts(
        search=total(states),
        by_state={kind: total(s for s in states if s.state == kind) for kind in kinds},
        by_arm={arm: total(s for s in states if s.trial.arm == arm) for arm in arms(states)},
        finalists=total(finalists),
        final=total(final),
        pretraining=_pretraining(results, [*states, *finalists, *final]),
    )


def _sources(state: TrialState) -> set[str]:
    """Where a trial's initial weights and those of its teachers come from: 'pretrained', or paths."""
    return {weights.source for weights in state.trial.given}


def _pretraining(results: Path, own: list[TrialState]) -> tuple[Pretraining, ...]:
    """Every source of initial weights and every teacher in `own`, with its cost where it is a trial below `results`."""
    everyone = [
        s for study in studies(results) for d in (study, finalists_of(study), final_of(study)) for s in d.states()
    ]
    found: list[Pretraining] = []
    uses, uses_here = (Counter(source for state in some for source in _sources(state)) for some in (everyone, own))
    for source, here in sorted(uses_here.items()):
        parts = Path(source).parts  # STUDY/trials/TRIAL/best.safetensors
        if source == "pretrained" or Path(source).is_absolute() or len(parts) != 4:
            found.append(Pretraining(source, None, here, here, None))
            continue
        runs = max(here, uses[source])
        cost = total(s for s in StudyDir(results, parts[0]).states() if s.id == parts[2])
        part = here / runs
        share = Share(
            wall_seconds=cost.wall_seconds * part,
            train_seconds=cost.train_seconds * part,
            flops=cost.flops * part,
            energy_joules=None if cost.energy_joules is None else cost.energy_joules * part,
        )
        found.append(Pretraining(f"{parts[0]}/{parts[2]}", cost, runs, here, share))
    return tuple(found)
