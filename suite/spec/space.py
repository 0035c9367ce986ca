"""Search spaces: ranges of values, and the names of the parameters that they belong to.

A parameter is named by its path inside an `Arm`. The fields of the recipe may be written with or without the
prefix "recipe."; the form without it ("lr", "augment.shift") is the canonical name. Spaces and `--set` assignments
hold canonical names only. `Trial.params` of older studies may have the long form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from suite.spec.base import Positive, Spec
from suite.spec.recipe import Recipe

Value = bool | int | float | str

Params = dict[str, Value]  # values by parameter name


class LogFloat(Spec):
    """A float between `low` and `high`, sampled uniformly on a logarithmic scale."""

    kind: Literal["log"] = "log"
    low: Positive
    high: Positive

    def distribution(self) -> str:
        """The range as JSON for `optuna.distributions.json_to_distribution`."""
        return _float_distribution(self.low, self.high, log=True)


class Uniform(Spec):
    """A float between `low` and `high`, sampled uniformly."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float

    def distribution(self) -> str:
        """The range as JSON for `optuna.distributions.json_to_distribution`."""
        return _float_distribution(self.low, self.high, log=False)


class Choice(Spec):
    """One of `values`."""

    kind: Literal["choice"] = "choice"
    values: tuple[Value, ...] = Field(min_length=1)

    def distribution(self) -> str:
        """The range as JSON for `optuna.distributions.json_to_distribution`."""
        return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": self.values}})


def _float_distribution(low: float, high: float, *, log: bool) -> str:
    attributes = {"low": low, "high": high, "log": log, "step": None}
    return json.dumps({"name": "FloatDistribution", "attributes": attributes})


Range = Annotated[LogFloat | Uniform | Choice, Field(discriminator="kind")]


def canonical_name(name: str) -> str:
    """The canonical name of a parameter: "lr" for both "lr" and "recipe.lr"."""
    prefix, _, rest = name.partition(".")
    return rest if prefix == "recipe" and rest.split(".")[0] in Recipe.model_fields else name


def canonical_names(names: Iterable[str]) -> dict[str, str]:
    """Canonical names by the names as given.

    Raises:
        ValueError: Two different names stand for one parameter.
    """
    found: dict[str, str] = {}
    spelling: dict[str, str] = {}
    for name in names:
        found[name] = canonical = canonical_name(name)
        first = spelling.setdefault(canonical, name)
        if first != name:
            raise ValueError(f"'{first}' and '{name}' are two spellings of one parameter; give only one of them")
    return found


def canonical_params(params: Params) -> Params:
    """Parameters under their canonical names; of two spellings of one parameter the last one counts."""
    return {canonical_name(name): value for name, value in params.items()}


def _canonical_space(space: dict[str, LogFloat | Uniform | Choice]) -> dict[str, LogFloat | Uniform | Choice]:
    names = canonical_names(space)
    return {names[name]: choices for name, choices in space.items()}


Space = Annotated[dict[str, Range], AfterValidator(_canonical_space)]  # ranges by parameter name


def assignments(pairs: Iterable[str]) -> Params:
    """Parameters from "key=value" texts, as `--set` takes them.

    Args:
        pairs: Texts such as "lr=0.05" or "augment.shift=2". `value_of` says how a value is read. Of two assignments to
            the same key the last one counts.

    Returns:
        Values by canonical name.

    Raises:
        ValueError: A text has no "=", or two keys are different spellings of one parameter.
    """
    given: Params = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"'{pair}' is not of the form key=value, for example lr=0.05 or augment.shift=2")
        given[key.strip()] = value_of(text)
    names = canonical_names(given)
    return {names[key]: value for key, value in given.items()}


NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def value_of(text: str) -> Any:
    """The value that a text means: JSON where it is valid JSON, and numbers and booleans as people write them.

    ".05", "5.", "+1", "1_000" and "1e1" are numbers, "True", "FALSE", "yes" and "off" booleans, and "None" is JSON's
    null. A number without a fraction is a whole one, however it is written. Everything else is text.
    """
    text = text.strip()
    if NUMBER.fullmatch(text):
        if re.fullmatch(r"[+-]?\d+", text):
            return int(text) if len(text) < 20 else float(text)
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text == "None":  # but not "none", which is a value of `balance`
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
