"""Fronts of accuracy against cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from suite.ranking.leaderboard import COSTS, Row
from suite.ranking.pareto import Reference, as_text, front, fronts


def row(number: int, accuracy: float, **facts: Any) -> Row:
    return Row("s", f"{number:04d}", number, "a", "cnn", "scratch", "finished", accuracy)._replace(**facts)


def test_a_front_computed_by_hand() -> None:
    rows = [
        row(1, 0.90, flops=10**6),
        row(2, 0.95, flops=10**7),
        row(3, 0.96, flops=10**9),
        row(4, 0.94, flops=10**8),  # beaten by 2
        row(5, 0.97, flops=None),
        row(6, 0.99, flops=1)._replace(state="pruned"),
    ]
    found = front(rows, "flops")
    assert found is not None
    assert [p.trial for p in found.points] == ["0001", "0002", "0003"]
    assert found.knee == "0002"
    assert found.points[0].price == pytest.approx(9e6 / 50)
    assert found.points[1].price == pytest.approx(99e7 / 10)
    assert found.points[2].price is None
    assert found.reference == Reference(1e9, 0.90)
    assert found.hypervolume == pytest.approx(2 * 0.05)  # two decades by five points; its ends add nothing
    assert "<- knee" in as_text(found)


def test_a_cost_of_zero_is_accepted() -> None:
    found = front(
        [row(1, 0.9, train_flops=0), row(2, 0.95, train_flops=100), row(3, 0.97, train_flops=1000)], "train_flops"
    )
    assert found is not None
    assert math.isfinite(found.hypervolume)
    assert front([row(1, 0.9)], "energy") is None
    assert front([], "flops") is None


def test_fronts_of_several_validation_sets_are_apart() -> None:
    """A trial on other images neither joins nor ends the front of a study, and the keys say which is which."""
    mnist = row(1, 0.99, flops=10)._replace(validation=("mnist", "a" * 64, None))
    fashion = row(2, 0.90, flops=100)._replace(validation=("fashion-mnist", "b" * 64, 300))
    found = fronts([mnist, fashion])
    assert {key: [p.trial for p in one.points] for key, one in found.items()} == {
        "flops on mnist (aaaaaaaa)": ["0001"],
        "flops on fashion-mnist (bbbbbbbb), limit 300": ["0002"],
    }
    assert "FLOPs/img on mnist" in as_text(found["flops on mnist (aaaaaaaa)"])


def test_the_leaderboard_prints_fronts_and_costs(small: Any, suite: Callable[..., Any]) -> None:
    answer = json.loads(suite("leaderboard", "small", "--pareto", "--json", "--results", small.results).stdout)
    assert set(answer) == {"rows", "fronts", "costs"}
    assert set(answer["fronts"]) <= set(COSTS)
    assert {"flops", "params", "seconds"} <= set(fronts([row(1, 0.9, flops=1, params=1, seconds=1.0)]))
    assert answer["costs"]["final"]["trials"] == 4
