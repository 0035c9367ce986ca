"""What an experiment declares: arms, search spaces, pruning, caps and the pretraining that arms start from."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from suite.spec.base import Name, Positive, Spec
from suite.spec.recipe import FROM_RANDOM, Recipe, Scratch, Strategy


class LogFloat(Spec):
    kind: Literal["log"] = "log"
    low: Positive
    high: Positive


class Uniform(Spec):
    kind: Literal["uniform"] = "uniform"
    low: float
    high: float


class Choice(Spec):
    kind: Literal["choice"] = "choice"
    values: tuple[bool | int | float | str, ...] = Field(min_length=1)


Range = Annotated[LogFloat | Uniform | Choice, Field(discriminator="kind")]

Space = dict[str, Range]  # keys are paths inside an arm: "lr" means "recipe.lr"; "strategy.head.k", "size", ...

Params = dict[str, bool | int | float | str]


class Pruning(Spec):
    """Successive halving on validation accuracy: at each rung the best 1/factor of the arm's trials go on."""

    first: float = Field(default=1.0, gt=0, description="epochs before the first rung; may be a part of one")
    factor: int = Field(default=3, ge=2, le=16)


class Arm(Spec):
    """One way to solve the task: backbone + strategy, with recipe defaults and its own additions to the space."""

    backbone: str = Field(min_length=1, max_length=200)
    strategy: Strategy = Scratch()
    weights: str | None = Field(
        default=None,
        description="'pretrained', 'experiment' (its own pretraining), or a path to weights or to a trial",
    )
    size: int | None = Field(
        default=None, ge=8, le=1024, description="input size in pixels; None: the backbone's default"
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="part of the training labels used, stratified")
    recipe: Recipe = Recipe()
    space: Space = Field(default_factory=dict)

    @model_validator(mode="after")
    def _weights_fit_the_strategy(self) -> Arm:
        if self.strategy.kind in FROM_RANDOM and self.weights is not None:
            raise ValueError(f"strategy '{self.strategy.kind}' starts from random weights; leave `weights` out")
        if self.strategy.kind not in FROM_RANDOM and self.weights is None:
            raise ValueError(f"strategy '{self.strategy.kind}' needs `weights` to start from")
        return self


class Caps(Spec):
    """What a model may cost. A trial whose model would cost more is pruned before it is trained."""

    flops: int | None = Field(default=None, ge=1, description="forward, per image; a multiply-add is two")
    params: int | None = Field(default=None, ge=1)
    latency: Positive | None = Field(default=None, description="seconds for one image, measured where it trains")


class Pretraining(Spec):
    """What an experiment trains first, once, for the arms whose weights are 'experiment'."""

    dataset: str
    backbone: str
    recipe: Recipe = Recipe()


class Experiment(Spec):
    """A declared question. Every arm gets the same number of trials."""

    name: Name
    question: str = Field(min_length=1)
    dataset: str = Field(min_length=1)
    arms: dict[Name, Arm] = Field(min_length=1)
    space: Space = Field(default_factory=dict)
    trials: int = Field(default=50, ge=1, le=1_000_000, description="in total, shared equally by the arms")
    pruning: Pruning | None = Pruning()
    pretraining: Pretraining | None = None
    caps: Caps | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)
    limit: int | None = Field(default=None, ge=20, description="use only so many images of each split (quick tries)")

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name, arm in self.arms.items():
            if arm.weights == "experiment" and self.pretraining is None:
                raise ValueError(f"arm '{name}' stands on weights 'experiment', but there is no `pretraining`")
            for path, choices in {**self.space, **arm.space}.items():
                for value in corners(choices):
                    try:
                        resolved(arm, {path: value})
                    except ValueError as error:
                        raise ValueError(f"arm '{name}', space '{path}': {first_error(error)}") from None
        return self

    def quota(self) -> dict[str, int]:
        """Trials per arm; the first arms take what does not divide evenly."""
        share, rest = divmod(self.trials, len(self.arms))
        return {name: share + (i < rest) for i, name in enumerate(self.arms)}


def corners(choices: LogFloat | Uniform | Choice) -> tuple[Any, ...]:
    """The values that show whether a range fits its field."""
    if isinstance(choices, Choice):
        return choices.values
    if choices.low > choices.high:
        raise ValueError(f"low {choices.low} is above high {choices.high}")
    return (choices.low, choices.high)


def resolved(arm: Arm, params: Params) -> Arm:
    """The arm with `params` put in: {"lr": 0.1, "strategy.head.hidden": 64}. Raises ValueError."""
    tree = arm.model_dump()
    for path, value in params.items():
        keys = path.split(".") if "." in path or path in Arm.model_fields else ["recipe", path]
        node: Any = tree
        for key in keys[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict) or keys[-1] not in node:
            where = ".".join(keys[:-1]) or "arm"
            known = ", ".join(node) if isinstance(node, dict) else "nothing"
            raise ValueError(f"there is no '{keys[-1]}' in {where}; it has: {known}")
        node[keys[-1]] = value
    return Arm.model_validate_json(json.dumps(tree))  # JSON mode: lists become tuples again, types stay strict


def assignments(pairs: list[str]) -> Params:
    """`--set key=value` pairs as parameters; a value is JSON where it parses (0.1, true), else text."""
    params: Params = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"'{pair}' is not of the form key=value, for example lr=0.05 or augment.shift=2")
        key = key.strip()
        if key.split(".")[0] in Recipe.model_fields and "." in key:
            key = f"recipe.{key}"
        try:
            params[key] = json.loads(text)
        except json.JSONDecodeError:
            params[key] = text
    return params


def first_error(error: ValueError) -> str:
    """One readable line out of a pydantic error, with the dotted path it speaks of."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    one = errors()[0]
    path = ".".join(str(part) for part in one["loc"])
    message = one["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message
