"""The arms of an experiment that compresses one trained model."""

from __future__ import annotations

import pytest

from suite.cli.compress import _shares
from suite.errors import InputError
from suite.spec import Arm, Experiment
from suite.spec.compression import compressions
from suite.spec.load import load_experiment


def test_every_way_starts_from_the_model_or_learns_from_it() -> None:
    parent = Arm(backbone="timm:resnet10t", size=64, fit="pad", fraction=0.5)
    arms = compressions(parent, "study/3", keep=(0.4, 0.1), into=("lean-s", "timm:test_resnet"))
    assert list(arms) == ["prune-40", "prune-10", "low-rank-25", "distill-lean-s", "distill-test_resnet", "int8"]
    for name, arm in arms.items():
        assert (arm.size, arm.fit, arm.fraction) == (64, "pad", 0.5)
        assert arm.weights == (None if name.startswith("distill") else "study/3")
        assert arm.teacher == (None if name == "int8" else "study/3")
        assert arm.recipe.label_smoothing == 0
    assert [arms[name].strategy.keep for name in ("prune-40", "prune-10")] == [0.4, 0.1]  # type: ignore[union-attr]


def test_one_trial_an_arm_is_its_default_and_more_search_rates() -> None:
    declared = load_experiment("compress")
    smaller = {name: arm for name, arm in declared.arms.items() if name != "parent"}
    assert declared.pretraining is not None and all(arm.pretrained_here for arm in smaller.values())
    assert declared.comparisons() == [(name, "parent") for name in smaller]
    assert set(declared.quota().values()) == {1}
    more = Experiment.model_validate(dict(declared) | {"trials": 5 * len(declared.arms)})
    quota = more.quota()
    assert quota["int8"] == 1 and quota["prune-25"] == 5  # there is nothing to search in quantisation


@pytest.mark.parametrize("text", ["", "0.5,", "0", "1.5", "half", "nan", "-1"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--keep takes shares"):
        _shares(text)
