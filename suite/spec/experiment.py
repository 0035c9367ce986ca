"""What an experiment file declares: arms, search space, pruning, caps and pretraining."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from functools import reduce
from typing import Any, ClassVar

from pydantic import Field, model_validator

from suite.spec.base import Name, Positive, Spec, first_error
from suite.spec.preprocess import Fit
from suite.spec.recipe import FROM_RANDOM, Recipe, Scratch, Strategy
from suite.spec.space import Choice, LogFloat, Params, Space, Uniform, Value


class Pruning(Spec):
    """Successive halving (Jamieson and Talwalkar, 2016, arXiv:1502.07943) over complete trainings.

    Every trial is first trained by its whole recipe, schedule included, over a small part of the epochs. When all
    trials of a batch have come that far, the best 1/`factor` of them, rounded up, are trained anew over `factor` times
    the epochs, the last time over all. A trial's fate does not depend on the order in which trials end. Trainings that
    are cut off in the middle of a schedule are compared before their rate has come down; on the recorded trainings of
    `mnist-suite bench search` they say little of the end.
    """

    first: float | None = Field(
        default=None, gt=0, description="epochs of the first training, may be fractional; None: all epochs / factor"
    )
    factor: int = Field(
        default=9, ge=2, le=100, description="one trial in `factor` goes on, over `factor` times the epochs"
    )
    batch: int = Field(default=27, ge=2, le=10_000, description="trials of an arm that are compared with each other")


class Plugin(Spec):
    """One of Optuna's samplers or pruners, by the name of its class, with arguments of its constructor."""

    name: str = Field(pattern=r"^[A-Za-z]\w{0,79}$")
    options: dict[str, Value] = Field(default_factory=dict)


class Arm(Spec):
    """One way to solve the task: backbone and strategy, with a default recipe and ranges of its own to search."""

    backbone: str = Field(min_length=1, max_length=200, description="a built-in name, or timm:NAME")
    strategy: Strategy = Scratch()
    weights: str | None = Field(
        default=None,
        description="initial weights: 'pretrained', 'experiment' (from the experiment's `pretraining`), or a path to "
        "weights or to a trial; None: random",
    )
    size: int | None = Field(
        default=None, ge=8, le=1024, description="input size in pixels; None: the backbone's default"
    )
    fit: Fit | None = Field(
        default=None,
        description="how pictures of one's own become square: crop, pad or squeeze; None: pad where many are more than "
        "twice as wide as tall or the other way round, else crop",
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="proportion of the training labels used, stratified")
    recipe: Recipe = Recipe()
    space: Space = Field(default_factory=dict, description="ranges of this arm; they override the experiment's")
    first: tuple[Params, ...] = Field(
        default=(), description="parameters that are tried after the arm's own recipe, as far as they lie in its space"
    )

    teacher: str | None = Field(
        default=None,
        description="a trained model to learn from beside the labels (see `Distill`): 'experiment', or a trial, or "
        "several trials separated by commas, whose mean is learned from; None: the labels alone",
    )

    against: tuple[Name, ...] = Field(
        default=(),
        description="arms that the final evaluation compares this one with; where no arm has any, all are compared "
        "with each other",
    )

    added: ClassVar[frozenset[str]] = frozenset({"fit", "first", "teacher", "against"})

    @model_validator(mode="after")
    def _weights_match_the_strategy(self) -> Arm:
        if self.strategy.kind in FROM_RANDOM and self.weights is not None:
            raise ValueError(f"strategy '{self.strategy.kind}' starts from random weights; leave `weights` out")
        if self.strategy.kind not in FROM_RANDOM and self.weights is None:
            raise ValueError(f"strategy '{self.strategy.kind}' needs `weights` to start from")
        if self.strategy.kind == "int8" and self.teacher is not None:
            raise ValueError("strategy 'int8' trains nothing, so it cannot learn from a `teacher`")
        if self.strategy.kind == "head" and self.teacher is not None:
            raise ValueError("strategy 'head' trains on features, where a `teacher` has no images to look at")
        return self

    @property
    def pretrained_here(self) -> bool:
        """Whether the arm needs the experiment's own `pretraining`."""
        return "experiment" in (self.weights, self.teacher)


class Caps(Spec):
    """Upper limits on the cost of a model. A trial whose model exceeds one is pruned before it is trained."""

    flops: int | None = Field(
        default=None, ge=1, description="of one forward pass of one image; a multiply-add counts as two"
    )
    params: int | None = Field(default=None, ge=1, description="number of parameters")
    latency: Positive | None = Field(
        default=None, description="seconds for one image, measured on the machine that trains"
    )


class Pretraining(Spec):
    """A training that runs once, before the search. Arms with weights 'experiment' start from its result, those with a
    teacher 'experiment' learn from it and from that of every backbone in `also`."""

    added: ClassVar[frozenset[str]] = frozenset({"also"})

    dataset: str
    backbone: str
    recipe: Recipe = Recipe()
    also: tuple[str, ...] = Field(
        default=(), description="further backbones that are trained by the same recipe, as teachers beside the first"
    )


class Experiment(Spec):
    """A question, and the arms and search space that answer it. All arms get the same number of trials."""

    name: Name
    question: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    arms: dict[Name, Arm] = Field(min_length=1)
    space: Space = Field(default_factory=dict, description="ranges that every arm searches")
    trials: int = Field(default=50, ge=1, le=1_000_000, description="in total, shared equally by the arms")
    pruning: Pruning | None = Pruning()
    sampler: Plugin | None = Field(
        default=None, description="one of Optuna's samplers; None: quasi-random, after the default recipe"
    )
    pruner: Plugin | None = Field(
        default=None, description="one of Optuna's pruners, which takes the place of `pruning`"
    )
    pretraining: Pretraining | None = None
    caps: Caps | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    limit: int | None = Field(
        default=None, ge=20, lt=2**63, description="largest number of images of each split, for quick tries"
    )
    finalists: int = Field(
        default=0,
        ge=0,
        le=100,
        description="recipes of each arm, at most, to train again after the search with three fresh seeds, beside the "
        "default recipe; 0: none, since a dozen full trainings may cost more than a search with pruning",
    )

    @model_validator(mode="after")
    def _arms_match_space_and_pretraining(self) -> Experiment:
        for name, arm in self.arms.items():
            others = [other for other in self.arms if other != name]
            if unknown := [other for other in arm.against if other not in others]:
                known = ", ".join(others) or "there is none"
                raise ValueError(f"arm '{name}' is compared with '{unknown[0]}', which is no other arm: {known}")
            if arm.pretrained_here and self.pretraining is None:
                what = "starts from weights" if arm.weights == "experiment" else "learns from the teacher"
                raise ValueError(f"arm '{name}' {what} 'experiment', but there is no `pretraining`")
            for path, choices in {**self.space, **arm.space}.items():
                for value in _critical_values(choices):
                    try:
                        resolved(arm, {path: value})
                    except ValueError as error:
                        raise ValueError(f"arm '{name}', space '{path}': {first_error(error)}") from None
        return self

    def quota(self) -> dict[str, int]:
        """The number of trials of each arm. Where `trials` does not divide evenly, the first arms get one more.

        An arm has at most one trial for each combination of values that it can take.
        """
        share, rest = divmod(self.trials, len(self.arms))
        wanted = {name: share + (i < rest) for i, name in enumerate(self.arms)}
        return {name: min(number, combinations(self.space_of(name)) or number) for name, number in wanted.items()}

    def comparisons(self) -> list[tuple[str, str]]:
        """The pairs of arms that the final evaluation compares, each as (ARM, the arm that it is compared with): those
        that the arms name, or all where none does, then every arm with those before it.

        The fewer pairs are planned, the smaller a difference can be told from chance, since each p value and interval
        is adjusted for their number.
        """
        planned = [(name, other) for name, arm in self.arms.items() for other in arm.against]
        return planned or every_pair(self.arms)

    def space_of(self, arm: str) -> Space:
        """The ranges that an arm searches."""
        return {**self.space, **self.arms[arm].space}


def every_pair(arms: Iterable[str]) -> list[tuple[str, str]]:
    """Every arm with each of those before it."""
    return [(arm, before) for before, arm in itertools.combinations(arms, 2)]


def combinations(space: Space) -> int | None:
    """The number of points of a search space, 1 where it is empty; None where a range is continuous."""
    count = 1
    for choices in space.values():
        if isinstance(choices, Choice):
            count *= len(set(choices.values))
        elif choices.low < choices.high:
            return None
    return count


def _critical_values(choices: LogFloat | Uniform | Choice) -> tuple[Value, ...]:
    """Values such that a field that accepts them accepts the whole range."""
    if isinstance(choices, Choice):
        return choices.values
    if choices.low > choices.high:
        raise ValueError(f"low {choices.low} is above high {choices.high}")
    return (choices.low, choices.high)


def is_default(arm: Arm, params: Params) -> bool:
    """Whether these values of parameters are the arm's own."""
    return all(
        reduce(lambda node, key: getattr(node, key, None), key_path(name), arm) == value
        for name, value in params.items()
    )


def key_path(name: str) -> list[str]:
    """The keys that lead from an arm to a parameter: ["recipe", "lr"] for both "lr" and "recipe.lr"."""
    keys = name.split(".")
    return keys if keys[0] in Arm.model_fields else ["recipe", *keys]


def resolved(arm: Arm, params: Params) -> Arm:
    """The arm with parameters set, for example {"lr": 0.1, "strategy.head.hidden": 64}.

    Args:
        arm: The arm to start from; it is not changed.
        params: Values by parameter name. Any spelling is accepted, and the last one counts, since older trials have
            the long one.

    Raises:
        ValueError: There is no such parameter, or the arm would not be valid.
    """
    tree = arm.model_dump()
    for name, value in params.items():
        keys = key_path(name)
        node: Any = tree
        for depth, key in enumerate(keys):
            if not isinstance(node, dict) or key not in node:
                where = ".".join(keys[:depth]) or "arm"
                known = ", ".join(node) if isinstance(node, dict) else "nothing"
                raise ValueError(f"there is no '{key}' in {where}; it has: {known}")
            if depth < len(keys) - 1:
                node = node[key]
        node[keys[-1]] = value
    # By way of JSON, because strict validation takes lists for tuples in JSON only.
    return Arm.model_validate_json(json.dumps(tree))
