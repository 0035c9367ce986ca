"""Which trials go on: the best of a batch, whatever the order in which they come."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from suite.search.pruning import Member, stages, verdicts
from suite.spec import Pruning


def test_short_trainings_rise_by_the_factor_and_end_before_the_whole_one() -> None:
    assert stages(None, 3) == ()
    assert stages(Pruning(), 3) == (3 / 9,)
    assert stages(Pruning(first=0.25, factor=3), 3) == (0.25, 0.75, 2.25)
    assert stages(Pruning(first=3), 3) == ()


@given(
    accuracies=st.lists(st.tuples(*[st.sampled_from([0.1, 0.5, 0.6, 0.7, 0.8])] * 2), min_size=1, max_size=12),
    failing=st.sets(st.integers(0, 11)),
    factor=st.integers(2, 5),
    order=st.randoms(use_true_random=False),
)
def test_the_outcome_does_not_depend_on_the_order_in_which_trials_end(
    accuracies: list[tuple[float, float]], failing: set[int], factor: int, order
) -> None:
    """A batch of trials of two stages, each step taken by a trial at random."""

    def run(choose) -> list[str]:
        batch = [Member(stages=2) for _ in accuracies]
        outcome = ["" for _ in accuracies]
        running = set(range(len(batch)))
        while running:
            i = choose(sorted(running))
            running.discard(i)
            if i in failing:
                batch[i], outcome[i] = replace(batch[i], ended=True), "failed"
            elif len(batch[i].accuracies) == 2:
                batch[i], outcome[i] = replace(batch[i], ended=True), "finished"
            else:
                passed = (*batch[i].accuracies, accuracies[i][len(batch[i].accuracies)])
                batch[i] = replace(batch[i], accuracies=passed, paused=True)
            for k, verdict in enumerate(verdicts(batch, factor, whole=True)):
                if verdict == "promote":
                    batch[k] = replace(batch[k], paused=False)
                    running.add(k)
                elif verdict == "prune":
                    batch[k], outcome[k] = replace(batch[k], paused=False, ended=True), "pruned"
        return outcome

    first = run(lambda left: left[0])
    assert run(order.choice) == first == run(lambda left: left[-1])
    assert "" not in first
    healthy = len(accuracies) - len([i for i in failing if i < len(accuracies)])
    assert (first.count("finished") > 0) == (healthy > 0)
    assert first.count("finished") <= math.ceil(math.ceil(len(accuracies) / factor) / factor)


def test_the_best_third_goes_on_once_all_have_come_that_far() -> None:
    batch = [Member(1, (a,), paused=True) for a in (0.5, 0.9, 0.7, 0.9, 0.6)] + [Member(1)]
    assert verdicts(batch, 3, whole=True) == ["wait"] * 6  # one has not come yet
    batch[-1] = Member(1, ended=True)  # it failed
    assert verdicts(batch, 3, whole=False) == ["wait"] * 6  # others may still be made
    assert verdicts(batch, 3, whole=True) == ["prune", "promote", "prune", "promote", "prune", "wait"]


def test_trials_without_short_trainings_take_nobodys_place() -> None:
    batch = [Member(0), Member(1, (0.5,), paused=True), Member(1, (0.6,), paused=True)]
    assert verdicts(batch, 2, whole=True) == ["wait", "prune", "promote"]


def test_trials_that_went_on_in_a_smaller_batch_stay_in_it() -> None:
    """The study got more trials, and two of the new ones are better at the first stage."""
    before = [Member(2, (0.5,), ended=True), Member(2, (0.6, 0.7), paused=True)]
    new = [Member(2, (0.8,), paused=True), Member(2, (0.9,), paused=True)]
    assert verdicts([*before, *new], 2, whole=True) == ["wait", "wait", "promote", "promote"]
    new = [Member(2, (0.8, 0.75), paused=True), Member(2, (0.9, 0.6), paused=True)]
    assert verdicts([*before, *new], 2, whole=True) == ["wait", "promote", "promote", "prune"]
