"""Which trials of an arm go on: successive halving over complete trainings of growing length.

Source: Jamieson and Talwalkar, 2016, arXiv:1502.07943; the trainings are complete, as `spec.Pruning` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from suite.spec import Pruning

Verdict = Literal["wait", "promote", "prune"]


def stages(pruning: Pruning | None, epochs: float) -> tuple[float, ...]:
    """The lengths, in epochs, of the short trainings that come before the whole one of `epochs`, rising."""
    if pruning is None:
        return ()
    found: list[float] = []
    length = pruning.first or epochs / pruning.factor
    while length < epochs:
        found.append(length)
        length *= pruning.factor
    return tuple(found)


@dataclass(frozen=True)
class Member:
    """A trial of a batch, as far as it has come."""

    stages: int  # number of short trainings that it has to pass
    accuracies: tuple[float, ...] = ()  # on validation, after those that it has passed
    paused: bool = False  # waits for its verdict
    ended: bool = False  # has a result, of whatever kind


def verdicts(batch: Sequence[Member], factor: int, *, whole: bool) -> list[Verdict]:
    """What becomes of each trial of a batch, whose trials are in the order of their numbers.

    `whole`: all trials of the batch have been made. Of the n trials that compete at a stage, ceil(n / factor) go on:
    the best by accuracy, the earlier one on a tie. They are known when all n have passed the stage or ended. Trials
    that have fewer stages than others go on without taking part. Those that have gone on stay in: they were promoted
    when the batch was smaller, as the last one of a study is before it gets more trials.
    """
    found: list[Verdict] = ["wait"] * len(batch)
    if not whole:
        return found
    rivals = range(len(batch))
    for stage in range(max((member.stages for member in batch), default=0)):
        rivals = [i for i in rivals if batch[i].stages > stage]
        passed = [i for i in rivals if len(batch[i].accuracies) > stage]
        if any(len(batch[i].accuracies) <= stage and not batch[i].ended for i in rivals):
            return found
        places = -(-len(rivals) // factor)
        ranked = sorted(passed, key=lambda i: (-batch[i].accuracies[stage], i))
        for place, i in enumerate(ranked):
            if batch[i].paused and len(batch[i].accuracies) == stage + 1:
                found[i] = "promote" if place < places else "prune"
        gone_on = [i for i in passed if len(batch[i].accuracies) > stage + 1 or not (batch[i].paused or batch[i].ended)]
        rivals = sorted({*ranked[:places], *gone_on})
    return found
