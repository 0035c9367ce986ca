"""Changes to declared experiments, and the arms of single trainings."""

from __future__ import annotations

from typing import Any

import pytest
import timm

from suite.errors import InputError
from suite.spec import Arm, Caps, Choice, Experiment, HeadOnly, LogFloat, Mlp, Recipe, Uniform
from suite.spec.changes import changed, single_arm
from suite.spec.default_recipes import (
    FINETUNE,
    FINETUNE_CONVOLUTIONAL,
    FINETUNE_TRANSFORMER,
    FROM_SCRATCH,
    HEAD,
    TRANSFORMERS,
    family,
)

LR = LogFloat(low=1e-3, high=0.1)
DECLARED = Experiment(
    name="e",
    question="q",
    dataset="mnist",
    arms={
        "a": Arm(backbone="cnn", recipe=Recipe(lr=0.02)),
        "b": Arm(backbone="net", space={"augment.shift": Uniform(low=0.0, high=2.0), "lr": LR}),
        "c": Arm(backbone="cnn", strategy=HeadOnly(head=Mlp()), weights="pretrained"),
    },
    space={"lr": LR, "batch_size": Choice(values=(16, 32))},
    trials=9,
    caps=Caps(flops=100, params=50),
)


def test_without_changes_the_experiment_stays_as_declared() -> None:
    assert changed(DECLARED) == DECLARED
    assert changed(DECLARED, caps=Caps()) == DECLARED
    none = DECLARED.model_copy(update={"caps": None})
    assert changed(none, caps=Caps()) == none


@pytest.mark.parametrize("settings", [["lr=0.3"], ["recipe.lr=0.3"], ['recipe={"lr": 0.3}']])
def test_a_parameter_that_is_set_leaves_every_space(settings: list[str]) -> None:
    """In the spelling "recipe.lr" it stayed in the space, and the search replaced the value."""
    found = changed(DECLARED, settings=settings)
    assert {arm.recipe.lr for arm in found.arms.values()} == {0.3}
    assert "lr" not in found.space
    assert "lr" not in found.arms["b"].space


def test_a_setting_leaves_other_parameters_searched() -> None:
    found = changed(DECLARED, settings=["augment.shift=1.5"])
    assert found.space == DECLARED.space
    assert [*found.arms["b"].space] == ["lr"]
    assert found.arms["a"].recipe.augment.shift == 1.5
    assert [*changed(DECLARED, settings=['augment={"shift": 1.5}']).arms["b"].space] == ["lr"]


def test_arms_trials_limit_and_seed() -> None:
    found = changed(DECLARED, arms=["c", "a"], trials=4, limit=100, seed=3)
    assert [*found.arms] == ["c", "a"]
    assert (found.trials, found.limit, found.seed) == (4, 100, 3)


def test_caps_replace_the_declared_ones_one_by_one() -> None:
    assert changed(DECLARED, caps=Caps(flops=7, latency=0.5)).caps == Caps(flops=7, params=50, latency=0.5)
    none = DECLARED.model_copy(update={"caps": None})
    assert changed(none, caps=Caps(params=9)).caps == Caps(params=9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": ["x"]}, "no arm 'x'; it has: a, b, c"),
        ({"arms": []}, "it has: a, b, c"),
        ({"settings": ["lr"]}, "key=value"),
        ({"settings": ["lrr=1"]}, "there is no 'lrr' in recipe; it has: optimizer, lr"),
        ({"settings": ["recipe.size=32"]}, "there is no 'size' in recipe"),
        ({"settings": ["augment.lr=1"]}, "there is no 'lr' in recipe.augment; it has: shift"),
        ({"settings": ["lr=1", "recipe.lr=1"]}, "two spellings"),
        ({"settings": ["momentum=2"]}, "momentum"),
        ({"trials": 0}, "trials"),
        ({"limit": 2**63}, "limit"),
    ],
)
def test_changes_that_are_not_valid(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        changed(DECLARED, **changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "weights", "recipe"),
    [("pretrain", None, FROM_SCRATCH), ("scratch", None, FROM_SCRATCH), ("head", "x", HEAD), ("full", "x", FINETUNE)],
)
def test_a_single_training_starts_from_the_recipe_of_its_strategy(
    strategy: str, weights: str | None, recipe: Recipe
) -> None:
    arm = single_arm("cnn", strategy, head="knn", weights=weights, settings=["recipe.epochs=7", "size=32"])
    assert arm.recipe == recipe.model_copy(update={"epochs": 7})
    assert (arm.strategy.kind, arm.size, arm.weights) == (strategy, 32, weights)
    if isinstance(arm.strategy, HeadOnly):
        assert arm.strategy.head.kind == "knn"


@pytest.mark.parametrize(
    ("backbone", "recipe"),
    [
        ("lean-m", FINETUNE),
        ("timm:tf_efficientnet_lite0", FINETUNE_CONVOLUTIONAL),
        ("timm:convnext_tiny.fb_in22k", FINETUNE_CONVOLUTIONAL),
        ("timm:vit_base_patch16_224.augreg_in21k", FINETUNE_TRANSFORMER),
        ("timm:swin_tiny_patch4_window7_224", FINETUNE_TRANSFORMER),
    ],
)
def test_fine_tuning_starts_from_the_recipe_of_the_backbones_family(backbone: str, recipe: Recipe) -> None:
    for strategy in ("full", "lp-ft", "partial"):
        assert single_arm(backbone, strategy, weights="x").recipe == recipe
    assert single_arm(backbone, "head", head="linear", weights="x").recipe == HEAD
    assert single_arm(backbone, "scratch").recipe == FROM_SCRATCH


def test_timms_transformers_are_known_by_their_names() -> None:
    modules = "vision_transformer", "deit", "beit", "eva", "swin_transformer", "swin_transformer_v2", "cait", "xcit"
    for module in modules:
        assert {family(f"timm:{name}") for name in timm.list_models(module=module)} == {"transformer"}, module
    for module in ("resnet", "efficientnet", "convnext", "regnet", "mobilenetv3", "efficientvit_mit", "levit"):
        assert {family(f"timm:{name}") for name in timm.list_models(module=module)} == {"convolutional"}, module
    models = timm.list_models()
    assert all(any(name.startswith(prefix) for name in models) for prefix in TRANSFORMERS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy": "magic"}, "strategy"),
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
        ({"precision": "fp9"}, "precision"),
        ({"weights": "pretrained"}, "random weights"),
        ({"settings": ["epochs=NaN"]}, "epochs"),
    ],
)
def test_single_trainings_that_are_not_valid(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match="This training cannot be set up") as caught:
        single_arm(**{"backbone": "cnn", "strategy": "scratch", **changes})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lr=0,05", 'not "0,05"; write a number such as 0.05'),
        ("epochs=10.5", "not 10.5; write a whole number"),
        ("nesterov=1", "not 1; write true or false"),
        ("augment={'shift': 1}", "write JSON"),
        ("lr=-1", "greater than 0, not -1"),
    ],
)
def test_a_refused_value_is_named_with_its_cure(setting: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        single_arm("cnn", "pretrain", settings=[setting])
    assert words in str(refusal.value)
