"""`mnist-suite bench search`: whole searches, replayed in seconds on recorded trainings, over many seeds.

A search sees the validation accuracies of one recorded seed. It is scored by what its user gets: the accuracy of its
winner with the other seed, less that of the default recipe, and by the seconds that its trainings took. A proposed
configuration stands for the nearest recorded one. Every search begins with the default recipe.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from suite.bench.measure import Figure
from suite.bench.search_table import POINTS, RECIPES, SPACE, Table, Training, table
from suite.hardware.device import cores
from suite.ranking.statistics import sample
from suite.search.pruning import Member, verdicts
from suite.search.quasi_random import point
from suite.search.sampler import distribution
from suite.spec import Params, Pruning

REPLAYS = 100

TRIALS = (12, 50)  # of an arm


RANGES: dict[str, BaseDistribution] = {name: distribution(choices) for name, choices in SPACE.items()}


class Outcome(NamedTuple):
    """The end of one replayed search."""

    gain: float  # of the winner over the default recipe, both with the other seed
    seconds: float


@dataclass
class Replay:
    """One search on one table: what it tried, what it saw, what that cost."""

    table: Table
    seed: int  # recorded seed whose accuracies the search sees
    number: int  # of the replay: seeds the sampler

    def __post_init__(self) -> None:
        self.tried: list[int] = []
        self.whole: list[int] = []  # trained in full
        self.seconds = 0.0

    def sees(self, number: int) -> Training:
        """The recorded training of a configuration, as this search sees it."""
        return self.table.trainings[number][self.seed]

    def propose(self, propose: Callable[[], Params]) -> int:
        """Choose the configuration to try next, and note it: the default recipe first, then what is proposed."""
        wanted = propose() if self.tried else self.table.points[0].params()
        self.tried.append(self.table.nearest(wanted, set(self.tried)))
        return self.tried[-1]

    def train(self, number: int, share: float = 1.0) -> None:
        self.seconds += self.table.seconds(number, share)
        if share == 1.0:
            self.whole.append(number)

    def outcome(self) -> Outcome:
        winner = max(self.whole, key=lambda number: self.sees(number).value, default=0)
        gains = [self.table.trainings[number][1 - self.seed].value for number in (winner, 0)]
        return Outcome(gains[0] - gains[1], self.seconds)


Rule = Callable[[Replay, int, float], None]  # a search of so many trials, ended when it has cost so many seconds


def short_trainings(replay: Replay, trials: int, budget: float, *, pruning: Pruning | None = None) -> None:
    """The suite's own search: quasi-random points, judged by complete short trainings."""
    pruning = pruning or Pruning()
    shares = {9: (1 / 9,), 3: (1 / 9, 1 / 3)}[pruning.factor]
    for number in range(trials):
        replay.propose(partial(point, SPACE, replay.number, number - 1))
    for first in range(0, trials, pruning.batch):
        batch = replay.tried[first : first + pruning.batch]
        members = [Member(len(shares), paused=True) for _ in batch]
        alive = list(range(len(batch)))
        for share in shares:
            for i in alive:
                replay.train(batch[i], share)
                seen = replay.sees(batch[i]).ninth if share < 0.2 else replay.sees(batch[i]).third
                members[i] = Member(len(shares), (*members[i].accuracies, seen), paused=True)
            told = verdicts(members, pruning.factor, whole=True)
            members = [
                member if verdict == "promote" else Member(len(shares), member.accuracies, ended=True)
                for member, verdict in zip(members, told, strict=True)
            ]
            alive = [i for i in alive if told[i] == "promote"]
        for i in alive:
            replay.train(batch[i])


def quasi_random(replay: Replay, trials: int, budget: float) -> None:
    """The suite's own points without pruning."""
    for number in range(trials):
        replay.train(replay.propose(partial(point, SPACE, replay.number, number - 1)))


Sampler = Callable[[int, int], BaseSampler]  # from a seed and a number of trials


def tpe(seed: int, trials: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=min(10, max(3, trials // 3)))


def optuna_search(
    replay: Replay,
    trials: int,
    budget: float,
    *,
    sampler: Sampler = tpe,
    pruner: Callable[[], BasePruner] | None = None,
) -> None:
    """Optuna's loop with one of its samplers, and one of its pruners, which see each evaluation of a whole training.

    Without a finite `budget` it makes so many trials; else as many as the budget allows.
    """
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler(replay.number, trials),
        pruner=pruner() if pruner else optuna.pruners.NopPruner(),
    )
    many = trials if math.isinf(budget) else len(replay.table.points)
    while len(replay.tried) < many and replay.seconds < budget:
        chosen = replay.propose(lambda: study.ask(RANGES).params)
        trained = replay.sees(chosen)
        study.enqueue_trial(replay.table.points[chosen].params())
        trial = study.ask(RANGES)
        for step, accuracy in enumerate(trained.curve, 1):
            trial.report(accuracy, step)
            if step < POINTS and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                replay.train(chosen, step / POINTS)
                break
        else:
            study.tell(trial, trained.value)
            replay.train(chosen)


def halving_in_order(replay: Replay, trials: int, budget: float, *, factor: int = 3) -> None:
    """Successive halving within the schedule, each trial judged against those before it: the suite's first rule."""
    study = optuna.create_study(direction="maximize", sampler=tpe(replay.number, trials))
    rungs: dict[int, list[float]] = {1: [], 3: []}
    while len(replay.tried) < trials:
        chosen = replay.propose(lambda: study.ask(RANGES).params)
        trained, told = replay.sees(chosen), {}
        for step, seen in rungs.items():
            told[step] = trained.curve[step - 1]
            seen.append(told[step])
            if told[step] < sorted(seen, reverse=True)[max(1, len(seen) // factor) - 1]:
                replay.train(chosen, step / POINTS)
                state, value = TrialState.PRUNED, None
                break
        else:
            replay.train(chosen)
            state, value = TrialState.COMPLETE, trained.value
        params = replay.table.points[chosen].params()
        study.add_trial(
            create_trial(state=state, value=value, params=params, distributions=RANGES, intermediate_values=told)
        )


PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "MedianPruner": optuna.pruners.MedianPruner,
    "SuccessiveHalvingPruner": optuna.pruners.SuccessiveHalvingPruner,
    "HyperbandPruner": optuna.pruners.HyperbandPruner,
    "WilcoxonPruner": optuna.pruners.WilcoxonPruner,
}

RULES: dict[str, Rule] = {
    "ours": short_trainings,
    "ours, two stages": partial(short_trainings, pruning=Pruning(factor=3)),
    "quasi-random, no pruning": quasi_random,
    "random, no pruning": partial(optuna_search, sampler=lambda seed, _: RandomSampler(seed=seed)),
    "TPE, no pruning": optuna_search,
    "TPE, halving in order": halving_in_order,
    **{f"TPE, {name}": partial(optuna_search, pruner=make) for name, make in PRUNERS.items()},
}


def replayed(model: str, trials: int, number: int) -> dict[str, Outcome]:
    """All searches once: at an equal number of trials, and Optuna's with the seconds that ours took."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, Outcome] = {}
    for name, rule in RULES.items():
        replay = Replay(table(model), number % 2, number)
        rule(replay, trials, math.inf)
        found[name] = replay.outcome()
    for name in ("random, no pruning", "TPE, no pruning", *(f"TPE, {pruner}" for pruner in PRUNERS)):
        replay = Replay(table(model), number % 2, number)
        RULES[name](replay, trials, found["ours"].seconds)
        found[f"{name}, at equal cost"] = replay.outcome()
    return found


def search(replays: int = REPLAYS, numbers: Sequence[int] = TRIALS) -> Iterator[Figure]:
    """Gain over the default recipe and cost of each search, on each table that has twice as many configurations."""
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        for model in RECIPES:
            for trials in (n for n in numbers if 2 * n <= len(table(model).points)):
                runs = pool.map(partial(replayed, model, trials), range(replays), chunksize=5)
                yield from _figures(f"search.{model}.{trials}", list(runs))


def _figures(prefix: str, runs: Sequence[dict[str, Outcome]]) -> Iterator[Figure]:
    whole = statistics.mean(run["TPE, no pruning"].seconds for run in runs)
    for name in runs[0]:
        key = name.replace(",", "").replace(" ", "-")
        gains = [100 * run[name].gain for run in runs]
        how = f"percentage points over the default recipe, {interval(gains)}, {len(runs)} replays"
        yield f"{prefix}.{key}.gain", statistics.mean(gains), "points", how
        ratio = statistics.mean(run[name].seconds for run in runs) / whole
        yield f"{prefix}.{key}.cost", ratio, "x", "seconds of training, over those of TPE without pruning"
        if name != "ours":
            better = [100 * (run["ours"].gain - run[name].gain) for run in runs]
            how = f"in pairs, {interval(better, len(runs[0]) - 1)}, adjusted for {len(runs[0]) - 1} comparisons"
            yield f"{prefix}.ours-less-{key}", statistics.mean(better), "points", how


def interval(values: Sequence[float], comparisons: int = 1) -> str:
    """Student's 95 % interval of a mean; of several `comparisons`, such that their intervals hold together, by
    Bonferroni."""
    found = sample(values, 1 - 0.05 / comparisons)
    low, high = (math.nan if bound is None else bound for bound in (found.low, found.high))
    return f"95 % interval {low:.3f} to {high:.3f}"
