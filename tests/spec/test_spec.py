"""The models: strict, immutable, and equal after a JSON round trip."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from suite.spec import (
    EVENT,
    Arm,
    Choice,
    Experiment,
    Full,
    HeadOnly,
    LogFloat,
    Recipe,
    Trial,
    Uniform,
    first_error,
    is_default,
    resolved,
)
from suite.spec.load import experiment_names, load_experiment

EXPERIMENTS = experiment_names()


def test_there_are_experiments() -> None:
    assert {"mnist", "fashion", "tutorial"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_holds_together(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name.replace("_", "-")
    assert load_experiment(experiment.name) == experiment
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment
    assert sum(experiment.quota().values()) == experiment.trials


@given(trials=st.integers(1, 10_000), arms=st.integers(1, 30))
def test_quota_is_exact_and_even(trials: int, arms: int) -> None:
    experiment = Experiment(
        name="e",
        question="q",
        dataset="mnist",
        trials=trials,
        arms={f"a{i}": Arm(backbone="cnn") for i in range(arms)},
        space={"lr": LogFloat(low=0.01, high=0.1)},
    )
    quota = experiment.quota().values()
    assert sum(quota) == trials
    assert max(quota) - min(quota) <= 1


def test_trial_id_knows_the_training_not_the_place(make_trial: Callable[..., Trial]) -> None:
    a, b = make_trial(), make_trial(number=4, study="other", device="cuda", threads=8)
    assert a.id.startswith("0003-")
    assert a.id[5:] == b.id[5:]
    assert make_trial(seed=2).id != a.id


@given(lr=st.floats(1e-9, 1e3), batch=st.integers(1, 65_536), momentum=st.floats(0, 0.999))
def test_trial_survives_json(make_trial: Callable[..., Trial], lr: float, batch: int, momentum: float) -> None:
    one = make_trial(recipe=Recipe(lr=lr, batch_size=batch, momentum=momentum), params={"lr": lr, "batch_size": batch})
    again = Trial.model_validate_json(one.model_dump_json())
    assert again == one
    assert again.id == one.id


def test_unknown_keys_and_wrong_types_are_refused() -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"learning_rate": 0.1})
    with pytest.raises(ValidationError):
        Recipe.model_validate({"batch_size": "64"})
    with pytest.raises(ValidationError):
        Recipe.model_validate({"lr": float("nan")})


@pytest.mark.parametrize(
    "arm",
    [
        {"backbone": "cnn", "weights": "pretrained"},
        {"backbone": "cnn", "strategy": {"kind": "full"}},
        {"backbone": "cnn", "recipe": {"nesterov": True, "momentum": 0.0}},
        {"backbone": "cnn", "strategy": {"kind": "magic"}},
    ],
)
def test_arms_that_make_no_sense(arm: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Arm.model_validate(arm)


def test_resolved_puts_values_where_their_path_says() -> None:
    arm = Arm(backbone="cnn", strategy=HeadOnly(), weights="pretrained")
    changed = resolved(arm, {"lr": 0.3, "strategy.head.kind": "linear", "recipe.augment.shift": 2.0, "size": 32})
    assert (changed.recipe.lr, changed.recipe.augment.shift, changed.size) == (0.3, 2.0, 32)
    with pytest.raises(ValueError, match="there is no 'lrr'"):
        resolved(arm, {"lrr": 1.0})
    with pytest.raises(ValueError, match="momentum"):
        resolved(arm, {"momentum": 2.0})


def test_default_values_are_known_in_any_spelling() -> None:
    arm = Arm(backbone="cnn", strategy=HeadOnly(), weights="pretrained", recipe=Recipe(lr=0.3))
    assert is_default(arm, {}) and is_default(arm, {"recipe.lr": 0.3, "strategy.head.kind": "linear", "size": None})
    assert not is_default(arm, {"lr": 0.2}) and not is_default(arm, {"lr": 0.3, "no.such.name": 1})


def test_space_is_checked_against_the_fields() -> None:
    def with_space(**space: object) -> Experiment:
        return Experiment.model_validate(
            {"name": "e", "question": "q", "dataset": "mnist", "arms": {"a": Arm(backbone="cnn")}, "space": space}
        )

    with_space(lr=LogFloat(low=1e-4, high=1.0), batch_size=Choice(values=(32, 64)))
    for bad in (
        {"momentum": Uniform(low=0.0, high=1.0)},
        {"lr": LogFloat(low=1.0, high=0.1)},
        {"nothing": Uniform(low=0.0, high=1.0)},
        {"batch_size": Choice(values=(32, 0))},
        {"strategy.head.k": Choice(values=(1,))},
    ):
        with pytest.raises(ValidationError):
            with_space(**bad)


def test_first_error_names_the_path() -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"augment": {"shift": -1.0}})
    assert first_error(caught.value).startswith("augment.shift:")


def test_an_arm_on_the_experiments_weights_needs_a_pretraining() -> None:
    with pytest.raises(ValidationError, match="pretraining"):
        Experiment(
            name="e",
            question="q",
            dataset="mnist",
            arms={"a": Arm(backbone="cnn", strategy=Full(), weights="experiment")},
        )


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.dictionaries(st.text(), c)))
def test_no_event_comes_out_of_arbitrary_json(value: object) -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_json(json.dumps(value))


@pytest.mark.parametrize("name", ["../up", "/abs", "", ".hidden", "a/b", "nul\0", "x" * 300, "ü"])
def test_names_stay_one_path_component(name: str) -> None:
    with pytest.raises(ValidationError):
        Experiment(name=name, question="q", dataset="mnist", arms={"a": Arm(backbone="cnn")})
