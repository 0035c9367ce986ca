"""What the search of each arm found over the arm's default recipe, how sure that is, and what it cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from suite.ranking.annotations import Annotations, tests
from suite.ranking.formats import duration, hyperparameters, percent
from suite.ranking.leaderboard import Row, row
from suite.ranking.shift import shifts
from suite.ranking.statistics import Sample, newcombe, paired_t, sample
from suite.ranking.study_costs import Total, total
from suite.spec import Arm, Params
from suite.store.exports import read_exports
from suite.store.finalists import Finalist, best_of, confirmed, default_of
from suite.store.notes import read_notes
from suite.store.study import StudyDir, finalists_of, repeats
from suite.store.trial import TrialState


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies, with its 95 % interval."""

    value: float
    low: float | None  # None: a single pair, or the winner is the default recipe itself
    high: float | None


@dataclass(frozen=True)
class Gain:
    """The search of one arm. Accuracies are on the validation images."""

    arm: str
    trials: int  # that ended
    outcomes: Mapping[str, int]  # of these, by state
    search: Total  # cost of these
    finalists: Total  # cost of the finalists' trainings
    winner: str  # trial of the search
    params: Params
    accuracy: float  # of the winner in the search: optimistic
    error: float | None  # its binomial standard error; None where the number of images is not known
    images: int
    fresh: Sample | None  # the winner's accuracy over fresh seeds; None without finalists
    default: str | None  # trial of the default recipe; None where the search had none
    over_default: Difference | None  # paired over fresh seeds, else of the figures of the search; None: not known

    @property
    def spread(self) -> str:
        """How good the winner is and how sure that is, for a cell: "best of 50, 99.02% ± 0.11 over 3 fresh seeds"."""
        if self.fresh is None:
            return f"best of {self.trials}" + ("" if self.error is None else f", ± {100 * self.error:.2f}")
        mean, low, high = self.fresh.mean, self.fresh.low, self.fresh.high
        half = "" if low is None or high is None else f" ± {50 * (high - low):.2f}"
        return f"best of {self.trials}, {percent(mean)}{half} over {self.fresh.n} fresh seeds"


def study_gains(study: StudyDir, states: Sequence[TrialState]) -> list[Gain]:
    """What the search found, for every arm with a finished trial. `states` are the study's trials."""
    file = study.study()
    if file is None:
        return []
    runs, spent = repeats(study), finalists_of(study).states()
    fresh = confirmed(states, runs)
    found: list[Gain] = []
    for name, arm in file.experiment.arms.items():
        own = [s for s in states if s.trial.arm == name and s.record is not None]
        cost = total(s for s in spent if s.trial.arm == name)
        if one := _gain(own, name, arm, fresh.get(name, []), cost):
            found.append(one)
    return found


def _gain(own: Sequence[TrialState], name: str, arm: Arm, finalists: Sequence[Finalist], cost: Total) -> Gain | None:
    """`own` are the arm's trials that ended."""
    winner = finalists[0].state if finalists else best_of(own)
    if winner is None or winner.record is None or winner.best is None:
        return None
    default, accuracy, images = default_of(own, arm), winner.best, winner.record.images
    return Gain(
        arm=name,
        trials=len(own),
        outcomes=Counter(s.state for s in own),
        search=total(own),
        finalists=cost,
        winner=winner.id,
        params=winner.trial.canonical_params,
        accuracy=accuracy,
        error=math.sqrt(accuracy * (1 - accuracy) / images) if images else None,
        images=images,
        fresh=sample([*finalists[0].accuracies.values()]) if finalists else None,
        default=default.id if default else None,
        over_default=_over_default(winner, default, finalists) if default else None,
    )


def _over_default(winner: TrialState, default: TrialState, finalists: Sequence[Finalist]) -> Difference | None:
    if winner is default:
        return Difference(0.0, None, None)
    if finalists:
        first, second = (next((f.accuracies for f in finalists if f.state is s), {}) for s in (winner, default))
        shared = [seed for seed in first if seed in second]
        if not shared:
            return None
        pairs = paired_t([first[seed] for seed in shared], [second[seed] for seed in shared])
        return Difference(pairs.difference, pairs.low, pairs.high)
    if default.state != "finished" or winner.best is None or default.best is None or winner.record is None:
        return None
    return Difference(winner.best - default.best, *newcombe(winner.best, default.best, winner.record.images))


def board(study: StudyDir, now: float | None = None) -> list[Row]:
    """The rows of a study's trials, unranked; the best of several trials of an arm says so in `best`.

    `now` is the present of the study's clock, see `leaderboard.row`.
    """
    states = study.states()
    found = study_gains(study, states)
    spreads = {one.winner: one.spread for one in found if one.trials > 1 or one.fresh}
    rows = {state.id: row(study.name, state, now=now)._replace(best=spreads.get(state.id)) for state in states}
    defaults = {one.arm: rows[one.default] for one in found if one.default}
    beside = Annotations(
        tests=tests(study, dict.fromkeys(state.trial.arm for state in states)),
        defaults={arm: default for arm, default in defaults.items() if default.state == "finished"},
        shifts=shifts(study),
        notes=read_notes(study),
        exports=read_exports(study),
    )
    return [beside.on(one) for one in rows.values()]


# --- for the terminal ---------------------------------------------------------------------------------------------


def as_text(found: Sequence[Gain], study: str) -> str:
    """A few lines for each arm."""
    parts = [_as_text(one) for one in found]
    if found and all(one.fresh is None for one in found):
        parts.append(
            "The best of several noisy figures is too high. To train the best again with fresh seeds: "
            f"mnist-suite sweep --study {study} --resume --finalists 3"
        )
    return "\n".join(parts)


def _as_text(one: Gain) -> str:
    outcomes = ", ".join(f"{n} {state}" for state, n in sorted(one.outcomes.items()))
    cost = f"{one.trials} trials ({outcomes}) in {duration(one.search.wall_seconds)}"
    if one.finalists.trials:
        cost += f", {one.finalists.trials} trainings of finalists in {duration(one.finalists.wall_seconds)}"
    return "\n".join(
        (
            f"{one.arm}: {_number(one.winner)} is the best of {one.trials}, {hyperparameters(one.params)}",
            f"  {accuracy_words(one)}",
            f"  {gain_words(one)}",
            f"  cost: {cost}",
        )
    )


def accuracy_words(one: Gain) -> str:
    """The winner's accuracy and its uncertainty."""
    searched = percent(one.accuracy)
    if one.fresh is not None:
        bounds = _bounds(one.fresh.low, one.fresh.high)
        mean, n = percent(one.fresh.mean), one.fresh.n
        return f"{mean} on validation, mean of {n} fresh seeds{bounds}; {searched} in the search"
    error = "" if one.error is None else f" ± {100 * one.error:.2f} (standard error on {one.images:,} images)"
    return f"{searched} on validation in the search{error}{', optimistic' if one.trials > 1 else ''}"


def gain_words(one: Gain) -> str:
    """What was found over the default recipe."""
    if one.default is None:
        return "the default recipe lies outside the search space, so there is nothing to compare with"
    if one.default == one.winner:
        return "the search found nothing better than the default recipe"
    if one.over_default is None:
        return f"the default recipe {_number(one.default)} did not finish, so the gain over it is not known"
    found = one.over_default
    how = f"the mean of {one.fresh.n} pairs" if one.fresh else "of the images alone; optimistic"
    return (
        f"{100 * found.value:+.2f} points over the default recipe {_number(one.default)}"
        f"{_bounds(found.low, found.high, sign='+', how=how)}"
    )


def _bounds(low: float | None, high: float | None, *, sign: str = "", how: str = "") -> str:
    if low is None or high is None:
        return ""
    return f" (95 % {100 * low:{sign}.2f} to {100 * high:{sign}.2f}{f', {how}' if how else ''})"


def _number(trial: str) -> str:
    return trial.partition("-")[0]
