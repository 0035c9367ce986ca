"""The winner of a search: by its finalists' trainings with fresh seeds where there are any. Pure functions.

The best of many noisy accuracies is too high, and need not belong to the best recipe. The finalists' accuracies come
from trainings that had no part in their selection, all with the same seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from suite.spec import Arm, Trial, is_default
from suite.store.trial import TrialState

Recipe = tuple[str, str]  # arm and parameters


def recipe_of(trial: Trial) -> Recipe:
    """What a trial of a search shares with its repeats and with no other trial."""
    return trial.arm, json.dumps(trial.canonical_params, sort_keys=True)


@dataclass(frozen=True)
class Finalist:
    """A recipe that was trained again."""

    state: TrialState  # its trial of the search, see `by_recipe`
    accuracies: dict[int, float] = field(default_factory=dict)  # on validation, by seed
    failed: int = 0  # repeats without a model

    @property
    def eligible(self) -> bool:
        """Whether it may win: it is a model of the search, and none of its repeats failed."""
        return self.state.state == "finished" and bool(self.accuracies) and not self.failed

    @property
    def mean(self) -> float:
        return sum(self.accuracies.values()) / max(1, len(self.accuracies))


def best_of(states: Sequence[TrialState]) -> TrialState | None:
    """The finished trial with the best validation accuracy in the search; of equal ones the first."""
    finished = [s for s in states if s.state == "finished" and s.best is not None]
    return max(finished, key=lambda s: (s.best or 0.0, -s.trial.number), default=None)


def default_of(states: Sequence[TrialState], arm: Arm) -> TrialState | None:
    """The trial of the arm's default recipe as `by_recipe` takes it, from the arm's trials, or None."""
    return representative([s for s in states if is_default(arm, s.trial.params)])


def representative(states: Sequence[TrialState]) -> TrialState | None:
    """The best finished trial among those of one recipe; where none finished, the first one."""
    return min(states, key=_representing, default=None)


def by_recipe(states: Sequence[TrialState]) -> dict[Recipe, TrialState]:
    """The best finished trial of each recipe; where none finished, the first one."""
    found: dict[Recipe, TrialState] = {}
    for state in sorted(states, key=_representing):
        found.setdefault(recipe_of(state.trial), state)
    return found


def _representing(state: TrialState) -> tuple[bool, float, int]:
    """Order of the trials of one recipe: those that finished before others, and of these the best one first."""
    finished = state.state == "finished"
    return not finished, -(state.best or 0.0) if finished else 0.0, state.trial.number


def confirmed(states: Sequence[TrialState], repeats: Sequence[TrialState]) -> dict[str, list[Finalist]]:
    """The finalists of each arm, the best mean first.

    Args:
        states: The trials of the search.
        repeats: The finalists' trainings, see `store.study.repeats`.

    Returns:
        Finalists by arm, without recipes of which a training has not ended. Left out are arms whose best trial is not
        among their finalists, since it was found after them, and arms without an eligible finalist.
    """
    if not repeats:
        return {}
    first = by_recipe(states)
    ended: dict[Recipe, list[TrialState]] = {}
    for repeat in repeats:
        ended.setdefault(recipe_of(repeat.trial), []).append(repeat)
    arms: dict[str, list[Finalist]] = {}
    for recipe, runs in ended.items():
        if recipe in first and all(run.record is not None for run in runs):
            done = {run.trial.seed: run.best for run in runs if run.state == "finished" and run.best is not None}
            arms.setdefault(recipe[0], []).append(Finalist(first[recipe], done, len(runs) - len(done)))
    found: dict[str, list[Finalist]] = {}
    for arm, finalists in arms.items():
        best = best_of([s for s in states if s.trial.arm == arm])
        known = {recipe_of(one.state.trial) for one in finalists}
        if best is not None and recipe_of(best.trial) in known and any(one.eligible for one in finalists):
            found[arm] = sorted(finalists, key=lambda one: (not one.eligible, -one.mean, one.state.trial.number))
    return found


def winner(states: Sequence[TrialState], repeats: Sequence[TrialState]) -> TrialState | None:
    """The best trial of a search: that of the finalist with the best mean accuracy over its fresh seeds.

    By its own validation accuracy where an arm with a finished trial has no finalists, since the two kinds of figures
    cannot be compared. None where no trial finished.
    """
    arms = confirmed(states, repeats)
    if not arms or {s.trial.arm for s in states if s.state == "finished"} - arms.keys():
        return best_of(states)
    return max((finalists[0] for finalists in arms.values()), key=lambda one: (one.mean, -one.state.trial.number)).state
