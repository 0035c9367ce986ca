"""Experiments and arms as the command line asks for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from suite.errors import InputError
from suite.spec.base import first_error
from suite.spec.default_recipes import default_recipe
from suite.spec.experiment import Arm, Caps, Experiment, key_path, resolved
from suite.spec.space import Space, assignments


def changed(
    experiment: Experiment,
    *,
    dataset: str | None = None,
    arms: Sequence[str] | None = None,
    settings: Sequence[str] = (),
    caps: Caps | None = None,
    trials: int | None = None,
    limit: int | None = None,
    seed: int | None = None,
    finalists: int | None = None,
) -> Experiment:
    """The experiment with changes; what is None or empty stays as declared.

    Args:
        experiment: The experiment as declared.
        dataset: The data set to search on. That of the experiment's pretraining stays.
        arms: Names of the arms to keep.
        settings: Assignments "key=value", applied to every arm. A parameter that is set is no longer searched.
        caps: Caps to add; where the experiment declares the same cap, this one replaces it.
        trials: Number of trials in total.
        limit: Largest number of images of each split.
        seed: Seed of the search and of the trainings.
        finalists: Recipes of each arm to train again after the search.

    Raises:
        InputError: There is no such arm, or the result would not be a valid experiment.
    """
    chosen = experiment.arms if arms is None else _choose(experiment, arms)
    replaced = {"dataset": dataset, "trials": trials, "limit": limit, "seed": seed, "finalists": finalists}
    update: dict[str, Any] = {key: value for key, value in replaced.items() if value is not None}
    if added := caps.model_dump(exclude_none=True) if caps else {}:
        update["caps"] = (experiment.caps or Caps()).model_copy(update=added)
    try:
        params = assignments(settings)
        fixed = [key_path(name) for name in params]
        update["space"] = _without(experiment.space, fixed)
        update["arms"] = {
            name: resolved(arm, params).model_copy(update={"space": _without(arm.space, fixed)})
            for name, arm in chosen.items()
        }
        return Experiment.model_validate(dict(experiment) | update)
    except ValueError as error:
        raise InputError(f"Experiment '{experiment.name}' cannot be changed so: {_reason(error)}.") from None


CURES = {
    "bool_type": "write true or false",
    "float_type": "write a number such as 0.05",
    "int_type": "write a whole number such as 10",
    "int_from_float": "write a whole number such as 10",
    "model_type": 'write JSON such as {"shift": 1.5}',
}


def _reason(error: ValueError) -> str:
    """What `first_error` says, with the value that was given and how to write one that would be taken."""
    if not isinstance(error, ValidationError):
        return str(error)
    one = error.errors()[0]
    given = one["input"]
    plain = given is None or isinstance(given, str | int | float)
    value = f", not {json.dumps(given, ensure_ascii=False)[:60]}" if plain and one["type"] != "value_error" else ""
    cure = CURES.get(one["type"])
    return f"{first_error(error)}{value}" + (f"; {cure}" if cure else "")


def _choose(experiment: Experiment, names: Sequence[str]) -> dict[str, Arm]:
    unknown = [name for name in names if name not in experiment.arms]
    if unknown or not names:
        raise InputError(
            f"Experiment '{experiment.name}' has no arm {', '.join(map(repr, unknown)) or 'of that name'}; "
            f"it has: {', '.join(experiment.arms)}."
        )
    return {name: experiment.arms[name] for name in names}


def _without(space: Space, fixed: Sequence[Sequence[str]]) -> Space:
    """The space without the parameters that are set, by themselves or as part of a setting like 'augment={...}'."""

    def is_fixed(name: str) -> bool:
        keys = key_path(name)
        return any(keys[: len(setting)] == setting for setting in fixed)

    return {name: choices for name, choices in space.items() if not is_fixed(name)}


def single_arm(
    backbone: str,
    strategy: str,
    *,
    head: str | None = None,
    weights: str | None = None,
    teacher: str | None = None,
    size: int | None = None,
    fit: str | None = None,
    fraction: float = 1.0,
    precision: str = "auto",
    settings: Sequence[str] = (),
) -> Arm:
    """The arm of a single training, with the default recipe of its strategy and backbone.

    Args:
        backbone: A built-in name, or timm:NAME.
        strategy: The `kind` of a strategy.
        head: The `kind` of a head; used with strategy 'head' only.
        weights: Initial weights, as in `Arm.weights`.
        teacher: A trained model to learn from, as in `Arm.teacher`.
        size: Input size in pixels; None means the backbone's default.
        fit: How pictures of one's own become square, as in `Arm.fit`.
        fraction: Proportion of the training labels used.
        precision: As in `Recipe.precision`.
        settings: Assignments "key=value".

    Raises:
        InputError: The arm would not be valid.
    """
    kind: dict[str, Any] = {"kind": strategy}
    if strategy == "head":
        kind["head"] = {"kind": head}
    recipe = default_recipe(strategy, backbone).model_dump()
    facts = {"backbone": backbone, "strategy": kind, "weights": weights, "teacher": teacher}
    facts |= {"size": size, "fit": fit, "fraction": fraction}
    try:
        arm = Arm.model_validate({**facts, "recipe": {**recipe, "precision": precision}})
        return resolved(arm, assignments(settings))
    except ValueError as error:
        raise InputError(f"This training cannot be set up: {_reason(error)}.") from None
