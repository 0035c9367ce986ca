"""Search spaces: names of parameters, assignments, and distributions."""

from __future__ import annotations

import json
from collections.abc import Callable

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, json_to_distribution
from pydantic import ValidationError

from suite.spec import (
    Arm,
    Choice,
    Experiment,
    LogFloat,
    Range,
    Recipe,
    Space,
    Trial,
    Uniform,
    assignments,
    canonical_name,
    resolved,
)
from suite.spec.space import value_of

LR = LogFloat(low=1e-3, high=0.1)


def with_spaces(space: Space, arm_space: Space) -> Experiment:
    arm = Arm(backbone="cnn", space=arm_space)
    return Experiment(name="e", question="q", dataset="mnist", arms={"a": arm}, space=space)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("lr", "lr"),
        ("recipe.lr", "lr"),
        ("recipe.augment.shift", "augment.shift"),
        ("strategy.head.k", "strategy.head.k"),
        ("size", "size"),
        ("recipe", "recipe"),
        ("recipe.size", "recipe.size"),  # not the arm's input size: a recipe has none
        ("recipe.recipe.lr", "recipe.recipe.lr"),
    ],
)
def test_a_parameter_has_one_canonical_name(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


@pytest.mark.parametrize("field", [*Recipe.model_fields])
def test_every_spelling_sets_the_same_field(field: str) -> None:
    arm = Arm(backbone="cnn")
    value = arm.recipe.model_dump(mode="json")[field]
    assert resolved(arm, {field: value}) == resolved(arm, {f"recipe.{field}": value}) == arm
    assert field not in Arm.model_fields  # else the short name would be ambiguous


def test_spaces_hold_canonical_names_in_their_order() -> None:
    """A space key "recipe.batch_size" was a different parameter than "batch_size"."""
    experiment = with_spaces({"recipe.lr": LR, "momentum": Uniform(low=0.1, high=0.9)}, {"recipe.augment.shift": LR})
    assert [*experiment.space] == ["lr", "momentum"]
    assert [*experiment.arms["a"].space] == ["augment.shift"]
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


def test_a_study_file_with_long_names_still_opens() -> None:
    experiment = with_spaces({"lr": LR}, {})
    old = json.loads(experiment.model_dump_json())
    old["space"] = {"recipe.lr": old["space"]["lr"]}
    assert Experiment.model_validate_json(json.dumps(old)) == experiment


def test_two_spellings_in_one_space_are_refused() -> None:
    for spaces in (({"lr": LR, "recipe.lr": LR}, {}), ({}, {"recipe.augment.shift": LR, "augment.shift": LR})):
        with pytest.raises(ValidationError, match="two spellings of one parameter"):
            with_spaces(*spaces)


def test_the_space_of_an_arm_overrides_the_experiments_in_any_spelling() -> None:
    own = LogFloat(low=0.5, high=1.0)
    experiment = with_spaces({"lr": LR}, {"recipe.lr": own})
    assert {**experiment.space, **experiment.arms["a"].space} == {"lr": own}


def test_assignments_are_typed_from_their_text() -> None:
    assert assignments(["lr=0.1", "epochs=3", "nesterov=true", "optimizer=adamw", "augment.shift=2"]) == {
        "lr": 0.1,
        "epochs": 3,
        "nesterov": True,
        "optimizer": "adamw",
        "augment.shift": 2,
    }
    assert assignments(["recipe.lr=0.1", "recipe.augment.shift=2"]) == {"lr": 0.1, "augment.shift": 2}
    assert assignments(["lr=0.1", "lr=0.2"]) == {"lr": 0.2}
    with pytest.raises(ValueError, match="key=value"):
        assignments(["lr"])
    with pytest.raises(ValueError, match=r"'recipe\.lr' and 'lr' are two spellings"):
        assignments(["recipe.lr=0.1", "lr=0.1"])


def test_trials_of_older_studies_keep_their_names_and_their_id(make_trial: Callable[..., Trial]) -> None:
    old = make_trial(params={"recipe.lr": 0.1, "momentum": 0.5})
    again = Trial.model_validate_json(old.model_dump_json())
    assert again.id == old.id != make_trial(params={"lr": 0.1, "momentum": 0.5}).id
    assert again.canonical_params == {"lr": 0.1, "momentum": 0.5}


def test_the_last_of_two_spellings_counts_in_a_trial(make_trial: Callable[..., Trial]) -> None:
    """Older studies could search a parameter twice; the last value is the one that was trained with."""
    params = {"lr": 0.1, "recipe.lr": 0.2}
    assert make_trial(params=params).canonical_params == {"lr": 0.2}
    assert resolved(Arm(backbone="cnn"), {**params}).recipe.lr == 0.2


@pytest.mark.parametrize(
    ("choices", "distribution"),
    [
        (LR, FloatDistribution(1e-3, 0.1, log=True)),
        (Uniform(low=-1.5, high=2.0), FloatDistribution(-1.5, 2.0)),
        (Choice(values=(1, 2.5, True, "a")), CategoricalDistribution((1, 2.5, True, "a"))),
    ],
)
def test_ranges_describe_themselves_to_optuna(choices: Range, distribution: object) -> None:
    found = json_to_distribution(choices.distribution())
    assert found == distribution
    optuna.distributions.check_distribution_compatibility(found, distribution)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".05", 0.05), ("5.", 5), ("5e-2", 0.05), ("1e1", 10), ("10.0", 10), ("+1", 1), ("-0.5", -0.5), ("05", 5),
        ("1_000", 1000), (" 3 ", 3), ("True", True), ("FALSE", False), ("yes", True), ("off", False), ("None", None),
        ("null", None), ("none", "none"), ("sgd", "sgd"), ("0,05", "0,05"), ("1/2", "1/2"), ("", ""),
        ('{"shift": 1}', {"shift": 1}), ("١", "١"),
    ],
)  # fmt: skip
def test_values_are_read_as_people_write_them(text: str, value: object) -> None:
    read = assignments([f"lr={text}"])["lr"]
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{!r}", "{:e}", "{:.17g}", " {!r}"]))
def test_every_spelling_of_a_number_is_that_number(number: float, spelling: str) -> None:
    assert value_of(spelling.format(number)) == float(spelling.format(number))


@given(st.text(max_size=30))
def test_any_text_has_a_value(text: str) -> None:
    value_of(text)
