"""Every choice that a search may make is tried before it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suite.errors import InputError
from suite.execution import choices
from suite.execution.options import Options
from suite.execution.plan import check
from suite.models import backbones
from suite.spec import Arm, Choice, Experiment, Full, HeadOnly, Partial, Recipe

Made = Callable[..., Experiment]


def refused(experiment: Experiment, results: Path) -> str:
    with pytest.raises(InputError) as error:
        check(experiment, results, Options(device="cpu"))
    assert "\n" not in str(error.value)
    assert not list(results.iterdir())
    return str(error.value)


def plan(made: Made, **changes: Any) -> Experiment:
    facts = {"space": {}, "arms": {"one": Arm(backbone="net", recipe=Recipe(batch_size=16))}}
    return made().model_copy(update=facts | changes)


def test_all_bad_choices_are_named_at_once_with_the_nearest_names(made: Made, tmp_path: Path) -> None:
    """The search drew them, and a trial failed for each."""
    backbones_ = Choice(values=("net", "lean-zz", "timm:resnet81", "timm:vit_base_patch16_224_in21k"))
    arms = {
        "chosen": Arm(backbone="net", space={"backbone": backbones_, "size": Choice(values=(28, 12))}),
        "tuned": Arm(backbone="net", strategy=Partial(), weights="experiment",
                     space={"strategy.blocks": Choice(values=(1, 2, 99))}),
        "wrong": Arm(backbone="cmn", recipe=Recipe(batch_size=4096)),
    }  # fmt: skip
    said = refused(plan(made, arms=arms), tmp_path)
    for word in ("'lean-zz'", "lean-s", "'timm:resnet81'", "timm:resnet", "timm:vit_base_patch16_224.augreg_in21k",
                 "net cannot take images of 12 pixels", "99", "'cmn'", "cnn", "Batches of 4096"):  # fmt: skip
        assert word in said, word
    assert said.count("'lean-zz'") == 1  # with each size it is the same


def test_good_choices_pass(made: Made, tmp_path: Path) -> None:
    space = {
        "backbone": Choice(values=("net", "cnn", "lean-s")),
        "size": Choice(values=(28, 32)),
        "batch_size": Choice(values=(8, 16)),
    }
    check(plan(made, space=space), tmp_path, Options(device="cpu"))


def test_more_choices_than_can_be_combined_are_tried_one_by_one(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "MOST", 3)
    space = {"size": Choice(values=(28, 29)), "backbone": Choice(values=("net", "nope"))}
    assert refused(plan(made, space=space), tmp_path).startswith("There is no backbone called 'nope'")


def test_pretraining_and_arms_have_the_same_backbone(made: Made, tmp_path: Path) -> None:
    arms = {"one": Arm(backbone="cnn", strategy=Full(), weights="experiment", recipe=Recipe(batch_size=16))}
    assert "trains net, whose weights do not fit cnn" in refused(plan(made, arms=arms), tmp_path)


def test_a_pretraining_that_cannot_run_is_refused_with_the_search(made: Made, tmp_path: Path) -> None:
    wrong = made().model_copy(update={"space": {}})
    pretraining = wrong.pretraining.model_copy(update={"backbone": "neet"})  # type: ignore[union-attr]
    arms = {"one": Arm(backbone="neet", strategy=HeadOnly(), weights="experiment")}
    said = refused(wrong.model_copy(update={"pretraining": pretraining, "arms": arms}), tmp_path)
    assert "no backbone called 'neet'" in said and "net" in said


def test_weights_that_do_not_fit_a_choice_are_refused(made: Made, tmp_path: Path) -> None:
    from suite.training.checkpoint import save_tensors

    weights, results = tmp_path / "w.safetensors", tmp_path / "results"
    results.mkdir()
    save_tensors(weights, backbones.build("net", classes=10, channels=1, size=28, seed=0).state_dict())
    arm = Arm(backbone="net", strategy=Full(), weights=str(weights), recipe=Recipe(batch_size=16))
    check(plan(made, arms={"one": arm}), results, Options(device="cpu"))
    said = refused(plan(made, arms={"one": arm}, space={"backbone": Choice(values=("net", "cnn"))}), results)
    assert "are not for cnn" in said
