"""Which arms the final evaluation compares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from suite.spec import Arm, Experiment


def experiment(**against: tuple[str, ...]) -> Experiment:
    arms = {name: Arm(backbone="net", against=others) for name, others in against.items()}
    return Experiment(name="e", question="Which?", dataset="mnist", arms=arms)


def test_all_pairs_where_none_is_planned() -> None:
    assert experiment(a=(), b=(), c=()).comparisons() == [("b", "a"), ("c", "a"), ("c", "b")]


def test_only_planned_pairs_where_there_are_some() -> None:
    assert experiment(a=(), b=("a",), c=("b", "a")).comparisons() == [("b", "a"), ("c", "b"), ("c", "a")]


@pytest.mark.parametrize("other", ["a", "nobody"])
def test_an_arm_is_compared_with_another_one(other: str) -> None:
    with pytest.raises(ValidationError, match=f"arm 'a' is compared with '{other}', which is no other arm: b"):
        experiment(a=(other,), b=())
